package ceph

import "testing"

func TestClientAddressesOfAllFormsAreOne(t *testing.T) {
	for text, want := range map[string]ClientAddress{
		"10.0.0.1:0/123": "10.0.0.1:0/123", "v1:10.0.0.1:0/123": "10.0.0.1:0/123", "v2:10.0.0.1:6800/123": "10.0.0.1:0/123",
		"[fd00:0::1]:0/4294967295": "[fd00::1]:0/4294967295", "v2:[fd00::1]:0/7": "[fd00::1]:0/7", "[::ffff:10.0.0.1]:0/1": "10.0.0.1:0/1",
		"any:10.0.0.1:0/9": "10.0.0.1:0/9",
	} {
		if got, err := ParseClient(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:0/0", "10.0.0.1:0/", "0.0.0.0:0/1", ":/0", "a:0/1", "10.0.0.1:0/4294967296", "[fe80::1%eth0]:0/1", "-", "10.0.0.1:0/+1"} {
		if got, err := ParseClient(text); err == nil {
			t.Errorf("%q: taken as %q", text, got)
		}
	}
}

func FuzzParseClient(f *testing.F) {
	f.Add("10.0.0.1:0/123")
	f.Add("v2:[fd00::1]:3300/7")
	f.Fuzz(func(t *testing.T, text string) {
		client, err := ParseClient(text)
		if err != nil {
			return
		}
		if again, err := ParseClient(string(client)); err != nil || again != client || client.Host() == "" {
			t.Errorf("%q: %q is read again as %q, %v", text, client, again, err)
		}
	})
}
