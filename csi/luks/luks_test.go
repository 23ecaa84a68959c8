package luks_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestAHeaderIsOfItsKeyAndFitsInFrontOfTheData(t *testing.T) {
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("cryptsetup is missing")
	}
	one, err := luks.Header(t.Context(), command.System{}, storage.NewSecret("key"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := luks.Header(t.Context(), command.System{}, storage.NewSecret("key"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(one, []byte("LUKS\xba\xbe\x00\x02")) || storage.Bytes(len(one)) > luks.HeaderSize {
		t.Errorf("%d bytes that begin with %q", len(one), one[:8])
	}
	if bytes.Equal(one, two) {
		t.Error("two headers are equal")
	}
}

func TestWithoutCryptsetupTheErrorSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := luks.Header(t.Context(), command.System{}, storage.NewSecret("key")); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v, want unsupported", err)
	}
}
