package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheSameFilesGiveTheSameBytes(t *testing.T) {
	build := func(order ...string) []byte {
		var files []File
		for _, name := range order {
			files = append(files, File{Target: name, Data: []byte(name), Mode: 0o755})
		}
		layer, err := LayerFromFiles(filepath.Join(t.TempDir(), "layer.tar"), files, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Write(&out, Image{Name: "a:1", Layers: []Layer{layer}, Entrypoint: []string{"/a"}}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	if !bytes.Equal(build("/usr/bin/a", "/b"), build("/b", "/usr/bin/a")) {
		t.Error("the order of the input shows in the archive")
	}
}

func TestAnArchiveNamesItsConfigAndLayers(t *testing.T) {
	layer, err := LayerFromFiles(filepath.Join(t.TempDir(), "layer.tar"), []File{{Target: "/bin/x", Data: []byte("x"), Mode: 0o755}}, []Link{{Target: "/bin/y", To: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, Image{Name: "holdfast:dev", Layers: []Layer{layer}}); err != nil {
		t.Fatal(err)
	}
	contents := read(t, &out)
	var manifest []manifestEntry
	if err := json.Unmarshal(contents["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	want := []manifestEntry{{Config: manifest[0].Config, RepoTags: []string{"holdfast:dev"}, Layers: []string{layer.Digest + ".tar"}}}
	if diff := cmp.Diff(want, manifest); diff != "" {
		t.Error(diff)
	}
	if contents[manifest[0].Config] == nil {
		t.Errorf("config %s is not in the archive", manifest[0].Config)
	}
	inner := read(t, bytes.NewReader(contents[layer.Digest+".tar"]))
	if string(inner["bin/x"]) != "x" {
		t.Errorf("bin/x holds %q", inner["bin/x"])
	}
}

func TestATreeKeepsLinksAndModesAndLeavesOutWhatIsSkipped(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "usr/share/doc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "usr/a"), []byte("a"), 0o4755))
	must(t, os.Chmod(filepath.Join(root, "usr/a"), 0o755|os.ModeSetuid))
	must(t, os.Link(filepath.Join(root, "usr/a"), filepath.Join(root, "usr/b")))
	must(t, os.Symlink("a", filepath.Join(root, "usr/c")))
	must(t, os.WriteFile(filepath.Join(root, "usr/share/doc/long"), []byte("text"), 0o644))
	layer, err := LayerFromDir(filepath.Join(t.TempDir(), "l.tar"), root, func(name string) bool { return name == "usr/share/doc" })
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(layer.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := map[string]byte{}
	for tr := tar.NewReader(file); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		got[header.Name] = header.Typeflag
		if header.Name == "usr/a" && header.Mode&0o7777 != 0o4755 {
			t.Errorf("usr/a has mode %o", header.Mode)
		}
	}
	want := map[string]byte{"usr/": tar.TypeDir, "usr/share/": tar.TypeDir, "usr/a": tar.TypeReg, "usr/b": tar.TypeLink, "usr/c": tar.TypeSymlink}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func read(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	contents := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return contents
		}
		must(t, err)
		data, err := io.ReadAll(tr)
		must(t, err)
		contents[header.Name] = data
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
