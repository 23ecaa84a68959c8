package attach

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestMonitorAddressesAreReadInEveryFormThatCephTakes(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string
		want monitorAddrs
	}{
		{"a host and the v1 port", []string{"10.0.0.1:6789"}, monitorAddrs{v1: []string{"10.0.0.1:6789"}}},
		{"a host and the v2 port", []string{"10.0.0.1:3300"}, monitorAddrs{v2: []string{"10.0.0.1:3300"}}},
		{"another port may be either", []string{"10.0.0.1:40001"}, monitorAddrs{v1: []string{"10.0.0.1:40001"}, v2: []string{"10.0.0.1:40001"}}},
		{"no port means both ports", []string{"mon.example"}, monitorAddrs{v1: []string{"mon.example:6789"}, v2: []string{"mon.example:3300"}}},
		{"a protocol", []string{"v2:10.0.0.1:40000"}, monitorAddrs{v2: []string{"10.0.0.1:40000"}}},
		{"both in brackets, with nonces", []string{"[v2:10.0.0.1:40000/0,v1:10.0.0.1:40001/0]"}, monitorAddrs{v1: []string{"10.0.0.1:40001"}, v2: []string{"10.0.0.1:40000"}}},
		{
			"several monitors in one string", []string{"[v2:10.0.0.1:1,v1:10.0.0.1:2],[v2:10.0.0.2:1,v1:10.0.0.2:2]"},
			monitorAddrs{v1: []string{"10.0.0.1:2", "10.0.0.2:2"}, v2: []string{"10.0.0.1:1", "10.0.0.2:1"}},
		},
		{"IPv6", []string{"[v2:[fd00::1]:3300,v1:[fd00::1]:6789]", "[fd00::2]:6789"}, monitorAddrs{v1: []string{"[fd00::1]:6789", "[fd00::2]:6789"}, v2: []string{"[fd00::1]:3300"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseMonitors(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(monitorAddrs{})); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := parseMonitors(nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("no monitors: got %v, want invalid", err)
	}
}

func TestTheKernelGetsTheAddressesOfItsProtocol(t *testing.T) {
	both := []string{"[v2:10.0.0.1:1,v1:10.0.0.1:2]"}
	for _, c := range []struct {
		name               string
		monitors, options  []string
		addrs, wantOptions []string
	}{
		{"v1 by default", both, nil, []string{"10.0.0.1:2"}, nil},
		{"v1 for legacy", both, []string{"ms_mode=legacy"}, []string{"10.0.0.1:2"}, []string{"ms_mode=legacy"}},
		{"v2 for any other mode", both, []string{"ms_mode=secure"}, []string{"10.0.0.1:1"}, []string{"ms_mode=secure"}},
		{"v2 where there is nothing else", []string{"v2:10.0.0.1:1"}, []string{"queue_depth=64"}, []string{"10.0.0.1:1"}, []string{"queue_depth=64", "ms_mode=prefer-crc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addrs, options, err := kernelMonitors(c.monitors, c.options)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.addrs, addrs) + cmp.Diff(c.wantOptions, options); d != "" {
				t.Error(d)
			}
		})
	}
	if _, _, err := kernelMonitors([]string{"v1:10.0.0.1:1"}, []string{"ms_mode=crc"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("v2 asked of a v1 cluster: got %v, want invalid", err)
	}
}

func TestMountOptionsBecomeFlagsAndData(t *testing.T) {
	flags, data := MountOptions([]string{"noatime,ro", "rw", "discard", "_netdev", "x-systemd.automount", `context="a,b"`})
	if want := uintptr(0x400); flags != want {
		t.Errorf("flags %#x, want noatime alone (%#x)", flags, want)
	}
	if want := `discard,context="a,b"`; data != want {
		t.Errorf("data %q, want %q", data, want)
	}
}
