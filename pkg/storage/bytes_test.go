package storage_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestSizesAreReadAsWritten(t *testing.T) {
	for text, want := range map[string]storage.Bytes{
		"0": 0, "512": 512, "4GiB": 4 << 30, "4 gib": 4 << 30, "10Gi": 10 << 30, "1TB": 1e12, "1.5k": 1500, "0.5MiB": 1 << 19, "7B": 7,
		"9223372036854775806": 9223372036854775806,
	} {
		if got, err := storage.ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "GiB", "1e400", "9223372036854775807000", "8EiB", "NaN", "Inf", "1 2", "९GiB"} {
		if got, err := storage.ParseBytes(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	f.Add("4GiB")
	f.Add("1e18P")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := storage.ParseBytes(text); err == nil && n < 0 {
			t.Fatalf("%q gives %d", text, n)
		}
	})
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	type holder struct{ Key storage.Secret }
	h := holder{storage.NewSecret("AQB-very-secret")}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "holder", h, "key", h.Key)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "holder", h, "key", h.Key)
	text := log.String() + fmt.Sprint(h, h.Key, &h) + fmt.Sprintf("%v %+v %#v %s %q %x", h, h, h, h, h.Key, h.Key)
	if strings.Contains(text, "very") || strings.Contains(text, "41514") {
		t.Fatal(text)
	}
}

func TestSizesAsDisksAreSold(t *testing.T) {
	for size, want := range map[storage.Bytes]string{0: "0 B", 999: "999 B", 4e12: "4 TB", 1.5e12: "1.5 TB", -2e9: "-2 GB", 1 << 40: "1.1 TB"} {
		if got := size.Decimal(); got != want {
			t.Errorf("%d: %q, want %q", size, got, want)
		}
	}
}
