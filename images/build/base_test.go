package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// aptOnly answers apt-get with fixed text.
type aptOnly string

func (a aptOnly) Run(context.Context, command.Cmd) (command.Result, error) {
	return command.Result{Stdout: []byte(a)}, nil
}

func TestThePackageListHasNoCommentsAndNoBlanks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "packages.txt")
	if err := os.WriteFile(path, []byte("# head\n\nxfsprogs\nkmod # why\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readPackages(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"xfsprogs", "kmod"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheMirrorIsTheOneOfTheSuiteItself(t *testing.T) {
	apt := aptOnly("bookworm-updates|main|http://one/\nbookworm|contrib|http://two/\nbookworm|main|http://three/\n")
	got, err := baseBuilder{runner: apt, suite: "bookworm"}.mirror(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != "http://three/" {
		t.Errorf("mirror is %q", got)
	}
}

func TestAnotherPackageListIsAnotherLayer(t *testing.T) {
	one := baseBuilder{suite: "bookworm", packages: []string{"a", "b"}}
	other := baseBuilder{suite: "bookworm", packages: []string{"a", "c"}}
	if one.key() == other.key() {
		t.Error("both have the same key")
	}
}

func TestTheLayerKeepsEmptyDirectoriesThatASystemNeeds(t *testing.T) {
	for name, want := range map[string]bool{
		"tmp": false, "tmp/x": true, "usr/share/doc": true, "var/lib/apt": false, "var/lib/apt/lists/y": true, "usr/bin/mount": false,
	} {
		if got := without(name); got != want {
			t.Errorf("%s is left out: %v", name, got)
		}
	}
}
