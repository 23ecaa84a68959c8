package nodelabels

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestLabelsOfTheOwnNodeAreRead(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer 토큰":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path != "/api/v1/nodes/node-a":
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write([]byte(`{"kind":"Node","metadata":{"name":"node-a","labels":{"topology.kubernetes.io/zone":"a","x":"y"}}}`))
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	write("token", []byte("토큰\n"))
	api := API{Host: strings.TrimPrefix(server.URL, "https://"), Dir: dir}
	zone := []string{"topology.kubernetes.io/zone"}
	if got, err := api.Read(t.Context(), "node-a", zone); err != nil || len(got) != 1 || got[zone[0]] != "a" {
		t.Errorf("read %v, %v", got, err)
	}
	if _, err := api.Read(t.Context(), "node-a", []string{"rack"}); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "rack") {
		t.Errorf("a label that is not there: %v", err)
	}
	if _, err := api.Read(t.Context(), "node-b", zone); !errors.Is(err, fault.NotFound) {
		t.Errorf("another node: %v", err)
	}
	write("token", []byte("wrong"))
	if _, err := api.Read(t.Context(), "node-a", zone); !errors.Is(err, fault.Denied) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("without the right: %v", err)
	}
	if _, err := (API{Host: "127.0.0.1:1", Dir: dir}).Read(t.Context(), "node-a", zone); !errors.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}
