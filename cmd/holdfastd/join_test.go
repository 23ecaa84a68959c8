package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestWhoHasACertificateNeedsNoToken(t *testing.T) {
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n1, log := certs.Identity{Role: certs.Agent, Name: "n1"}, slog.New(slog.DiscardHandler)
	gone := filepath.Join(t.TempDir(), "token")
	for name, issued := range map[string]time.Time{"good": time.Now(), "expired": time.Now().Add(-2 * certs.Life)} {
		pair, err := ca.Issue(n1, issued)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "certs")
		if err := certs.Write(dir, ca.Cert, pair); err != nil {
			t.Fatal(err)
		}
		store, err := identify(t.Context(), dir, gone, n1, log)
		if err != nil || store.Identity() != n1 {
			t.Errorf("with a certificate that is %s, and no token any more: %v", name, err)
		}
		if _, err := identify(t.Context(), dir, gone, certs.Identity{Role: certs.Agent, Name: "n2"}, log); !errors.Is(err, fault.Denied) {
			t.Errorf("with another's certificate: %v", err)
		}
	}
	if _, err := identify(t.Context(), t.TempDir(), gone, n1, log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with neither a certificate nor a token: %v", err)
	}
}

func TestWhoHasAnothersTokenWritesNothing(t *testing.T) {
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token, err := certs.NewToken([]string{"127.0.0.1:1"}, ca.Cert, certs.Identity{Role: certs.Coordinator, Name: "n7"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := token.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = identify(t.Context(), dir, text, certs.Identity{Role: certs.Agent, Name: "n7"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "is for coordinator/n7") {
		t.Errorf("%v", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
	damaged := text[:len(text)-1] + "!"
	if _, err := identify(t.Context(), dir, damaged, certs.Identity{Role: certs.Agent, Name: "n7"}, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), damaged[20:40]) {
		t.Errorf("a token that is damaged is not refused, or told: %v", err)
	}
}
