package attach

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// monitorAddrs are a cluster's monitor addresses by protocol. An address without a
// protocol and on neither of the well-known ports may be either and stands in both.
type monitorAddrs struct {
	v1, v2 []string // "host:port"
}

// The well-known ports of the two protocols:
// https://docs.ceph.com/en/pacific/rados/configuration/msgr2/
const (
	portV1 = "6789"
	portV2 = "3300"
)

// parseMonitors reads addresses in the forms that Ceph's "mon host" takes:
// "host", "host:port", "v2:host:port", "[v2:host:port,v1:host:port]" (nonces, as in
// "v1:10.0.0.1:6789/0", are dropped), also several in one string separated by commas.
func parseMonitors(list []string) (monitorAddrs, error) {
	var m monitorAddrs
	for _, entry := range list {
		for _, one := range splitMonitors(entry) {
			if err := m.add(one); err != nil {
				return monitorAddrs{}, err
			}
		}
	}
	if len(m.v1)+len(m.v2) == 0 {
		return monitorAddrs{}, fault.New(fault.Invalid, "the cluster map gives no monitor addresses")
	}
	return m, nil
}

// splitMonitors cuts at commas and spaces and drops the brackets around a monitor's
// addresses; brackets around an IPv6 address stay.
func splitMonitors(entry string) []string {
	var parts []string
	for _, part := range strings.FieldsFunc(entry, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		if strings.HasPrefix(part, "[v1:") || strings.HasPrefix(part, "[v2:") {
			part = part[1:]
		}
		if strings.Count(part, "]") > strings.Count(part, "[") {
			part = strings.TrimSuffix(part, "]")
		}
		if part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

func (m *monitorAddrs) add(one string) error {
	addr, _, _ := strings.Cut(one, "/")
	proto := ""
	for _, p := range []string{"v1", "v2"} {
		if rest, ok := strings.CutPrefix(addr, p+":"); ok {
			proto, addr = p, rest
		}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = strings.Trim(addr, "[]"), ""
	}
	if host == "" || strings.ContainsAny(host, " \t") {
		return fault.New(fault.Invalid, "monitor address %q: want host:port, v2:host:port or [v2:host:port,v1:host:port]", one)
	}
	switch {
	case proto == "" && port == portV2:
		proto = "v2"
	case proto == "" && port == portV1:
		proto = "v1"
	}
	if proto != "v2" {
		m.v1 = append(m.v1, net.JoinHostPort(host, orDefault(port, portV1)))
	}
	if proto != "v1" {
		m.v2 = append(m.v2, net.JoinHostPort(host, orDefault(port, portV2)))
	}
	return nil
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// kernelMonitors returns the addresses that the kernel client is to be given for the
// options that the user wants, and the options with ms_mode completed: without it the
// kernel speaks the v1 protocol alone ("legacy"), any other mode needs v2 addresses.
func kernelMonitors(list, options []string) (addrs, completed []string, err error) {
	m, err := parseMonitors(list)
	if err != nil {
		return nil, nil, err
	}
	mode := ""
	for _, o := range options {
		if value, ok := strings.CutPrefix(o, "ms_mode="); ok {
			mode = value
		}
	}
	switch {
	case mode == "" && len(m.v1) > 0, mode == "legacy":
		addrs = m.v1
	case mode == "":
		addrs, options = m.v2, append(append([]string{}, options...), "ms_mode=prefer-crc")
	default:
		addrs = m.v2
	}
	if len(addrs) == 0 {
		return nil, nil, fault.New(fault.Invalid, "ms_mode=%s needs monitor addresses of the other protocol than %s: correct mapOptions or the cluster map", mode, strings.Join(list, " "))
	}
	return addrs, options, nil
}

// resolve turns host names into addresses: the kernel knows no names.
func resolve(ctx context.Context, addrs []string) ([]string, error) {
	out := make([]string, 0, len(addrs))
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fault.New(fault.Invalid, "monitor address %q: %w", addr, err)
		}
		if net.ParseIP(host) != nil {
			out = append(out, addr)
			continue
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil || len(ips) == 0 {
			return nil, fault.As(fault.Unavailable, fmt.Errorf("resolve monitor %s: %w", host, err))
		}
		out = append(out, net.JoinHostPort(ips[0], port))
	}
	return out, nil
}
