package attach

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

func TestTheClientOfAMappedImageIsInSysfs(t *testing.T) {
	sys := t.TempDir()
	dir := filepath.Join(sys, "bus/rbd/devices/3")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Devices{krbd: &krbd{sys: sys, dev: "/dev"}}
	dev := Device{Mounter: Krbd, Path: "/dev/rbd3"}
	if got, err := d.Client(t.Context(), dev); err != nil || got != "" {
		t.Errorf("of an old kernel: got %q, %v, want none", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "client_addr"), []byte("[fd00:0::2]:0/77\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Client(t.Context(), dev); err != nil || got != "[fd00::2]:0/77" {
		t.Errorf("got %q, %v", got, err)
	}
	for client, want := range map[ceph.ClientAddress]bool{"[fd00::2]:0/77": true, "[fd00::2]:0/7": false} {
		if got, err := d.Living(t.Context(), "v", Krbd, client); err != nil || got != want {
			t.Errorf("%s lives: got %v, %v, want %v", client, got, err, want)
		}
	}
}

func TestTheKernelsStatusNamesItsClient(t *testing.T) {
	for status, want := range map[string]ceph.ClientAddress{
		"instance: client.4242 (2)10.99.0.2:0/1234567\nblocklisted: false\n": "10.99.0.2:0/1234567",
		"instance: client.4242 (1)[fd00::2]:0/7\n":                           "[fd00::2]:0/7",
		"instance: client.4242 10.99.0.2:0/1234567\n":                        "10.99.0.2:0/1234567", // Linux 5
		"blocklisted: false\n":                                               "",
	} {
		id, got, ok := parseInstance([]byte(status))
		if got != want || ok != (want != "") || ok && id != "4242" {
			t.Errorf("%q: got %q of client %q", status, got, id)
		}
	}
}

func FuzzKernelStatus(f *testing.F) {
	f.Add([]byte("instance: client.4242 (2)10.99.0.2:0/1234567\nblocklisted: false\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		if id, client, ok := parseInstance(status); ok && (id == "" || client.Host() == "") {
			t.Errorf("%q: id %q, client %q", status, id, client)
		}
	})
}
