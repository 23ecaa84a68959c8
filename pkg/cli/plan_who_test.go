package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestWhereThePersonsCertificateIs(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "coordinator", "admin")
	look := func(args ...string) (string, bool, bool) {
		cmd := &cobra.Command{}
		cmd.PersistentFlags().String("data-dir", dir, "")
		addCoordinatorFlags(cmd)
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return certsOf(cmd)
	}
	t.Setenv(certsVariable, "")
	if _, asked, _ := look(); asked {
		t.Error("nobody has asked for coordinators")
	}
	if err := os.MkdirAll(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, asked, there := look(); got != own || asked || !there {
		t.Errorf("of `holdfast up`: %s, %v, %v", got, asked, there)
	}
	if got, asked, there := look("--endpoints", "10.0.0.1:1"); got != own || !asked || !there {
		t.Errorf("with endpoints: %s, %v, %v", got, asked, there)
	}
	t.Setenv(certsVariable, "/elsewhere")
	if got, asked, _ := look(); got != "/elsewhere" || !asked {
		t.Errorf("by the environment: %s, %v", got, asked)
	}
	if got, asked, _ := look("--certs", "/here"); got != "/here" || !asked {
		t.Errorf("by the flag: %s, %v", got, asked)
	}
}

// TestPlansAreAskedForWhereTheyAreKept, which with the certificates of `holdfast up` is the coordinators.
func TestPlansAreAskedForWhereTheyAreKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "coordinator", "admin"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv(certsVariable, "")
	if _, err := runLine(t, "--data-dir "+dir+" plan list"); !errors.Is(err, fault.NotFound) { // the certificate of no coordinator
		t.Errorf("the coordinators are not asked: %v", err)
	}
}

// TestPlansOfThisMachineAloneNeedNoCoordinator has a plan that was made before there were any, and none that answers.
func TestPlansOfThisMachineAloneNeedNoCoordinator(t *testing.T) {
	dir, root := t.TempDir(), fakeDisks(t, 4, 4)
	t.Setenv(certsVariable, "")
	file := filepath.Join(t.TempDir(), "p.json")
	if out, err := runLine(t, "--data-dir "+dir+" plan --root "+root+" new media --disk D1,D2 --mount /mnt/media --out "+file); err != nil {
		t.Fatal(err, out)
	}
	id := string(finish(t, dir, file).ID)
	if err := os.MkdirAll(filepath.Join(dir, "coordinator", "admin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := runLine(t, "--data-dir "+dir+" plan list"); err != nil || !strings.Contains(out, id) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := runLine(t, "--data-dir "+dir+" plan show "+id[:6]); err != nil || !strings.Contains(out, "media") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTokensAreComparedInAnyOrder(t *testing.T) {
	if !sameToken("B,A", "A,B") || sameToken("A", "A,B") || sameToken("", "A") {
		t.Error("they are not")
	}
}
