package kms

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const secretKey = "0123456789abcdef-the-volume-key"

func wrap(t *testing.T, k Keyring, id string) Wrapped {
	t.Helper()
	w, err := k.Wrap(t.Context(), id, storage.NewSecret(secretKey))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.Key, secretKey) {
		t.Fatal("the key is not wrapped")
	}
	return w
}

func TestAKeyOpensWithItsPassphraseAlone(t *testing.T) {
	w := wrap(t, Config{}.Keyring(map[string]string{Passphrase: "one"}), "")
	if again := wrap(t, Config{}.Keyring(map[string]string{Passphrase: "one"}), ""); again == w {
		t.Error("two wrappings are equal: salt or nonce are not fresh")
	}
	for _, c := range []struct {
		secrets map[string]string
		want    error
	}{
		{map[string]string{Passphrase: "one"}, nil},
		{map[string]string{Passphrase: "two", OldPassphrase: "one"}, nil},
		{map[string]string{Passphrase: "two"}, fault.Denied},
		{map[string]string{OldPassphrase: "one"}, fault.Denied},
		{nil, fault.Denied},
	} {
		key, err := Config{}.Keyring(c.secrets).Unwrap(t.Context(), w)
		if !errors.Is(err, c.want) {
			t.Errorf("%d secrets: got %v, want %v", len(c.secrets), err, c.want)
		}
		if c.want == nil && key.Reveal() != secretKey {
			t.Errorf("another key came out")
		}
		for _, value := range c.secrets {
			if err != nil && strings.Contains(err.Error(), "\""+value+"\"") {
				t.Errorf("the error shows a passphrase: %v", err)
			}
		}
	}
}

func TestADamagedKeyIsToldFromAWrongPassphrase(t *testing.T) {
	k := Config{}.Keyring(map[string]string{Passphrase: "one"})
	w := wrap(t, k, "")
	data, _ := base64.StdEncoding.DecodeString(w.Key)
	flipped := append([]byte{}, data...)
	flipped[len(flipped)-1] ^= 1
	newer := append([]byte{9}, data[1:]...)
	for text, want := range map[string]error{
		"no base64": fault.Precondition,
		"":          fault.Precondition,
		base64.StdEncoding.EncodeToString(data[:20]):     fault.Precondition,
		base64.StdEncoding.EncodeToString(newer):         fault.Precondition,
		base64.StdEncoding.EncodeToString(flipped):       fault.Denied,
		base64.StdEncoding.EncodeToString(data[:1+17]):   fault.Precondition,
		base64.StdEncoding.EncodeToString(data[:1+16+9]): fault.Precondition,
	} {
		if _, err := k.Unwrap(t.Context(), Wrapped{Default, text}); !errors.Is(err, want) {
			t.Errorf("%.12q: got %v, want %v", text, err, want)
		}
	}
}

func TestAFileHoldsThePassphraseOfItsKMS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passphrase")
	config, err := Parse([]byte(`{"vaulted": {"type": "file", "path": "` + path + `"}}`))
	if err != nil {
		t.Fatal(err)
	}
	k := config.Keyring(nil)
	if _, err := k.Wrap(t.Context(), "vaulted", storage.NewSecret("k")); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without the file: got %v, want unavailable", err)
	}
	if err := os.WriteFile(path, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := wrap(t, k, "vaulted")
	if key, err := k.Unwrap(t.Context(), w); err != nil || key.Reveal() != secretKey {
		t.Errorf("unwrap: %v", err)
	}
	if _, err := k.Wrap(t.Context(), "other", storage.NewSecret("k")); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "vaulted") {
		t.Errorf("an unknown KMS: got %v, want invalid and those there are", err)
	}
}

func TestConfigsThatSayNothingClearAreRefused(t *testing.T) {
	for _, text := range []string{`[]`, `{"a":{}}`, `{"a":{"type":"vault"}}`, `{"a":{"type":"file"}}`, `{"secret":{"type":"file","path":"/x"}}`} {
		if _, err := Parse([]byte(text)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want invalid", text, err)
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add("AQ==")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 40 { // beyond, each try costs a key derivation
			t.Skip()
		}
		if _, err := (Config{}).Keyring(map[string]string{Passphrase: "p"}).Unwrap(t.Context(), Wrapped{Default, text}); err == nil {
			t.Errorf("%q opened", text)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":{"type":"file","path":"/x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		for id := range c {
			if err == nil && c.Knows(id) != nil {
				t.Errorf("%q is in the config and not known", id)
			}
		}
	})
}
