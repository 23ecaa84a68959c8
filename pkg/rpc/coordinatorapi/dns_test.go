package coordinatorapi

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// zone serves SRV records over UDP on loopback, and nothing else.
type zone struct {
	name    string
	targets []string
}

// serve answers until the test ends, and gives a resolver that asks it.
func (z zone) serve(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, err := z.answer(buf[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (z zone) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	q := m.Questions[0]
	if q.Type != dnsmessage.TypeSRV || q.Name.String() != z.name {
		m.RCode = dnsmessage.RCodeNameError
		return m.Pack()
	}
	for _, target := range z.targets {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET, TTL: 5},
			Body:   &dnsmessage.SRVResource{Port: 7480, Target: dnsmessage.MustNewName(target)},
		})
	}
	return m.Pack()
}

func TestCoordinatorsThatDNSNames(t *testing.T) {
	const name = "_coordinator._tcp.holdfast.test."
	resolver := zone{name, []string{"c-1.holdfast.test.", "c-0.holdfast.test."}}.serve(t)
	want := []Named{{"c-0", "c-0.holdfast.test:7480"}, {"c-1", "c-1.holdfast.test:7480"}}
	if got, err := Lookup(t.Context(), resolver, name); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	c := New(nil, []string{DNSPrefix + name, "10.0.0.1:7480"})
	c.Resolver = resolver
	if got := c.Addresses(t.Context()); !slices.Equal(got, []string{"10.0.0.1:7480", want[0].Address, want[1].Address}) {
		t.Errorf("addresses %v", got)
	}
	if _, err := Lookup(t.Context(), resolver, "other.test."); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a name without records: %v", err)
	}
	c = New(nil, []string{DNSPrefix + "other.test."})
	c.Resolver = resolver
	if got := c.Addresses(t.Context()); len(got) != 0 || c.missing() == nil {
		t.Errorf("addresses %v, because of %v", got, c.missing())
	}
}
