package agent

import (
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
)

func TestACertificateThatEndsSoonIsTold(t *testing.T) {
	now := time.Now()
	a := New(Config{Ledger: ledger.Of(t.TempDir()), Now: func() time.Time { return now }, Expires: func() time.Time { return now.Add(certs.Life) }})
	if list := a.checks(nil); len(list) != 0 {
		t.Errorf("a new one: %v", list)
	}
	a.Expires = func() time.Time { return now.Add(certs.Soon - time.Hour) }
	if list := a.checks(nil); len(list) != 1 || list[0].Code != string(codes.CertificateExpires) {
		t.Errorf("one that ends soon: %v", list)
	}
}
