package vdisk_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/transfer"
)

const partialSize = 1 << 20

func openPartial(t *testing.T, path string) *vdisk.Partial {
	t.Helper()
	p, err := vdisk.OpenPartial(path, "rbd:p/i", "tag")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// collected is a partial file that holds all of its disk.
func collected(t *testing.T, path string) *vdisk.Partial {
	t.Helper()
	p := openPartial(t, path)
	if err := p.Start(partialSize, "1"); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), transfer.Chunk{Offset: 4096, Length: 4096}, bytes.Repeat([]byte("x"), 4096)); err != nil {
		t.Fatal(err)
	}
	if err := p.Keep(t.Context(), transfer.Mark{UpTo: partialSize, Digest: "d"}); err != nil {
		t.Fatal(err)
	}
	return p
}

func closePartial(t *testing.T, p *vdisk.Partial) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func only(t *testing.T, folder string, want int) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != want {
		t.Errorf("%v in the folder, %v: want %d", entries, err, want)
	}
}

func TestAPartialGoesOnAndBecomesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	p := collected(t, path)
	if _, err := vdisk.OpenPartial(path, "rbd:p/i", ""); !errors.Is(err, fault.Busy) {
		t.Errorf("a second one: %v", err)
	}
	closePartial(t, p)
	if _, err := vdisk.OpenPartial(path, "rbd:p/other", ""); !errors.Is(err, fault.Precondition) {
		t.Errorf("of another source: %v", err)
	}
	p = openPartial(t, path)
	if p.Made() || !p.Begun() || p.Tag() != "tag" || p.Mark().UpTo != partialSize {
		t.Errorf("what is left: %v %v %q %v", p.Made(), p.Begun(), p.Tag(), p.Mark())
	}
	if err := p.Start(partialSize, "2"); !errors.Is(err, fault.Precondition) {
		t.Errorf("a source that was made anew: %v", err)
	}
	if err := p.Become(t.Context(), vdisk.Target{Path: path, Format: vdisk.Raw}, nil); err != nil {
		t.Fatal(err)
	}
	closePartial(t, p)
	if !vdisk.WasMade(path, "rbd:p/i") || vdisk.WasMade(path, "rbd:p/other") {
		t.Error("WasMade")
	}
	if err := vdisk.Discard(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) != partialSize || got[4096] != 'x' {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	only(t, filepath.Dir(path), 1)
}

// A copy that is cut off between the note that it gets its name and the name is not there yet, and goes on.
func TestAPartialThatIsCutOffBeforeItHasItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	p := collected(t, path)
	if err := os.WriteFile(path, make([]byte, partialSize), 0o600); err != nil { // somebody's, of the same size
		t.Fatal(err)
	}
	if err := p.Become(t.Context(), vdisk.Target{Path: path, Format: vdisk.Raw}, nil); !errors.Is(err, fault.Exists) {
		t.Fatal(err)
	}
	closePartial(t, p)
	if vdisk.WasMade(path, "rbd:p/i") {
		t.Error("somebody's file is taken for the copy")
	}
	p = openPartial(t, path)
	if p.Made() || p.Mark().UpTo != partialSize {
		t.Errorf("made %v, up to %d", p.Made(), p.Mark().UpTo)
	}
	if err := p.Become(t.Context(), vdisk.Target{Path: path, Format: vdisk.Raw, Overwrite: true}, nil); err != nil {
		t.Fatal(err)
	}
	closePartial(t, p)
}

// The note of before the name is what a process leaves that dies right behind the renaming.
func TestAPartialThatIsCutOffBehindItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	note := filepath.Join(filepath.Dir(path), ".disk.img.partial.json")
	p := collected(t, path)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Become(canceled, vdisk.Target{Path: path + ".absent/x", Format: vdisk.Raw}, nil); err == nil {
		t.Fatal("a file in no folder")
	}
	before, err := os.ReadFile(note) // with the intent
	if err != nil {
		t.Fatal(err)
	}
	closePartial(t, p)
	p = openPartial(t, path)
	if err := p.Become(t.Context(), vdisk.Target{Path: path, Format: vdisk.Raw}, nil); err != nil {
		t.Fatal(err)
	}
	closePartial(t, p)
	if err := os.WriteFile(note, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if !vdisk.WasMade(path, "rbd:p/i") {
		t.Error("the file is not known again")
	}
	only(t, filepath.Dir(path), 2) // to ask makes nothing
	p = openPartial(t, path)
	if !p.Made() {
		t.Error("the file is not known again")
	}
	closePartial(t, p)
	if err := vdisk.Discard(path); err != nil {
		t.Fatal(err)
	}
	only(t, filepath.Dir(path), 1)
}

// Without the hidden file there is nothing to go on with, whatever the note says.
func TestAPartialWhoseFileIsGoneBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	closePartial(t, collected(t, path))
	if err := os.Remove(filepath.Join(filepath.Dir(path), ".disk.img.partial")); err != nil {
		t.Fatal(err)
	}
	if vdisk.WasMade(path, "rbd:p/i") {
		t.Error("made, and there is no file")
	}
	p := openPartial(t, path)
	defer closePartial(t, p)
	if p.Made() || p.Mark().UpTo != 0 || p.Tag() != "tag" {
		t.Errorf("made %v, up to %d, tag %q", p.Made(), p.Mark().UpTo, p.Tag())
	}
}
