package daemon

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func example() Config {
	return Config{
		FSID: "11111111-2222-4333-8444-555555555555", Paths: Paths{"/d"}, Address: "127.0.0.1",
		Monitors: []Monitor{{Ref: MonRef(0), V2: 10000, V1: 10001}},
		PortLow:  10003, PortHigh: 10099, OSDs: 3, OSDSize: 4 * storage.GiB, NodeName: "n1",
	}
}

func TestNewKeyHasTheFormOfCephAuthtool(t *testing.T) {
	key, err := NewKey(bytes.NewReader(bytes.Repeat([]byte{7}, 16)), time.Unix(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	// u16 1, u32 1, u32 2, u16 16, then the secret
	if got, want := key.Reveal(), "AQABAAAAAgAAABAABwcHBwcHBwcHBwcHBwcHBw=="; got != want {
		t.Errorf("key %s, want %s", got, want)
	}
	if err := CheckKey(key.Reveal()); err != nil {
		t.Error(err)
	}
	if _, err := NewKey(strings.NewReader("short"), time.Now()); err == nil {
		t.Error("a key was made of too little randomness")
	}
}

func TestKeyringIsReadBackAsWritten(t *testing.T) {
	a, _ := NewKey(bytes.NewReader(make([]byte, 16)), time.Unix(1, 0))
	b, _ := NewKey(bytes.NewReader(make([]byte, 16)), time.Unix(2, 0))
	text := EncodeKeyring(Entity{Name: "client.a", Key: a, Caps: Caps{"osd": "allow *", "mon": "allow r"}}, Entity{Name: "client.b", Key: b})
	want := "[client.a]\n\tkey = " + a.Reveal() + "\n\tcaps mon = \"allow r\"\n\tcaps osd = \"allow *\"\n[client.b]\n\tkey = " + b.Reveal() + "\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	if got, err := ParseKeyring(text, "client.b"); err != nil || got != b {
		t.Errorf("got another key, %v", err)
	}
	if _, err := ParseKeyring(text, "client.c"); !errors.Is(err, fault.NotFound) {
		t.Errorf("got %v, want NotFound", err)
	}
	_, err := ParseKeyring([]byte("[client.a]\nkey = c2VjcmV0\n"), "client.a")
	if !errors.Is(err, fault.Invalid) || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("got %v, want Invalid without the key's text", err)
	}
}

func FuzzParseKeyring(f *testing.F) {
	f.Add([]byte("[client.a]\n\tkey = AQABAAAAAgAAABAABwcHBwcHBwcHBwcHBwcHBw==\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ParseKeyring(data, "client.a")
		if err == nil && CheckKey(key.Reveal()) != nil {
			t.Error("accepted a key that is none")
		}
	})
}

func TestCephConfHasNoPlaceLeftOpen(t *testing.T) {
	conf := example().CephConf()
	if strings.ContainsAny(conf, "{}") {
		t.Errorf("a place was left open:\n%s", conf)
	}
	for _, want := range []string{
		"mon host = [v2:127.0.0.1:10000,v1:127.0.0.1:10001]\n", "osd pool default size = 3\n", "osd pool default min size = 2\n",
		"bluestore block size = 4294967296\n", "crush location = root=default host=n1\n", "mon allow pool size one = false\n",
	} {
		if !strings.Contains(conf, want) {
			t.Errorf("ceph.conf lacks %q", want)
		}
	}
}

func TestReplicasFollowTheOSDs(t *testing.T) {
	for osds, want := range map[int][2]int{1: {1, 1}, 2: {2, 1}, 3: {3, 2}, 12: {3, 2}} {
		c := Config{OSDs: osds}
		if got := [2]int{c.Replicas(), c.MinReplicas()}; got != want {
			t.Errorf("%d OSDs: size, min_size %v, want %v", osds, got, want)
		}
	}
}

func TestCSIUsersAreNarrow(t *testing.T) {
	for name, caps := range map[string]Caps{"provisioner": ProvisionerCaps(Filesystem, PoolRBD), "node": NodeCaps(Filesystem, PoolRBD)} {
		for service, text := range caps {
			if strings.Contains(text, "*") || strings.Contains(text, "allow rw,") || strings.HasSuffix(text, "allow rw") {
				t.Errorf("%s may do too much in %s: %s", name, service, text)
			}
		}
	}
	notes := "allow rw pool=" + PoolRecords + " namespace=" + NamespaceNotes
	if osd := NodeCaps(Filesystem, PoolRBD)["osd"]; strings.Count(osd, PoolRecords) != 1 || !strings.HasSuffix(osd, notes) {
		t.Error("the node may touch the records: " + osd)
	}
}
