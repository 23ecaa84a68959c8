// Package certstest makes certificates for tests.
package certstest

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
)

// CA makes a CA.
func CA(t testing.TB) certs.Pair {
	t.Helper()
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// Store opens a new certificate of the CA, in a directory that ends with the test.
func Store(t testing.TB, ca certs.Pair, id certs.Identity) *certs.Store {
	t.Helper()
	pair, err := ca.Issue(id, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), id.Name)
	if err := certs.Write(dir, ca.Cert, pair); err != nil {
		t.Fatal(err)
	}
	store, err := certs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return store
}
