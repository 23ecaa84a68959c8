package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Layer is one uncompressed layer tar on disk.
type Layer struct {
	Path      string // of the layer's tar file
	Digest    string // SHA-256 of that file, in hexadecimal
	CreatedBy string // for `docker history`; free text
}

// File is one regular file of a layer.
type File struct {
	Target string // absolute path inside the image
	Source string // path of the content; used when Data is nil
	Data   []byte
	Mode   fs.FileMode // permission bits
}

// Link is a symbolic link of a layer.
type Link struct {
	Target string // absolute path inside the image
	To     string
}

// LayerFromFiles writes a layer of single files and links to out. Parent directories are
// added with mode 0755 and root as owner.
func LayerFromFiles(out string, files []File, links []Link) (Layer, error) {
	return writeLayerFile(out, func(tw *tar.Writer) error {
		entries := map[string]func(string) error{}
		for _, file := range files {
			entries[strings.TrimPrefix(file.Target, "/")] = func(name string) error { return addFile(tw, name, file) }
		}
		for _, link := range links {
			entries[strings.TrimPrefix(link.Target, "/")] = func(name string) error {
				return tw.WriteHeader(&tar.Header{Name: name, Linkname: link.To, Typeflag: tar.TypeSymlink, Mode: 0o777, ModTime: epoch()})
			}
		}
		for _, dir := range parents(entries) {
			if err := tw.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch()}); err != nil {
				return fmt.Errorf("add directory %s: %w", dir, err)
			}
		}
		for _, name := range sortedKeys(entries) {
			if err := entries[name](name); err != nil {
				return fmt.Errorf("add %s: %w", name, err)
			}
		}
		return nil
	})
}

// LayerFromDir writes the tree under root as a layer to out. Paths for which skip returns true
// (relative to root, with slashes) are left out with all below them. Device nodes and sockets
// are left out: a container gets its own /dev. skip may be nil.
func LayerFromDir(out, root string, skip func(string) bool) (Layer, error) {
	return writeLayerFile(out, func(tw *tar.Writer) error {
		links := map[inode]string{}
		return filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, name)
			if err != nil || relative == "." {
				return err
			}
			if skip != nil && skip(relative) {
				if entry.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			return addEntry(tw, name, relative, entry, links)
		})
	})
}

type inode struct{ dev, ino uint64 }

func addEntry(tw *tar.Writer, name, relative string, entry fs.DirEntry, links map[inode]string) error {
	info, err := entry.Info()
	if err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	if info.Mode()&(fs.ModeDevice|fs.ModeSocket|fs.ModeNamedPipe) != 0 {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(name); err != nil {
			return fmt.Errorf("read link: %w", err)
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("describe %s: %w", name, err)
	}
	header.Name, header.ModTime = relative, epoch()
	header.Uname, header.Gname = "", ""
	if info.IsDir() {
		header.Name += "/"
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && stat.Nlink > 1 {
		id := inode{dev: stat.Dev, ino: stat.Ino}
		if first, seen := links[id]; seen {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
			return tw.WriteHeader(header)
		}
		links[id] = relative
	}
	if err := tw.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s: %w", relative, err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	return copyFrom(tw, name)
}

func addFile(tw *tar.Writer, name string, file File) error {
	header := &tar.Header{Name: name, Mode: int64(file.Mode.Perm()), Typeflag: tar.TypeReg, ModTime: epoch()}
	if file.Data != nil {
		header.Size = int64(len(file.Data))
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		_, err := tw.Write(file.Data)
		return err
	}
	info, err := os.Stat(file.Source)
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	return copyFrom(tw, file.Source)
}

func copyFrom(w io.Writer, name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(w, in); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}

// writeLayerFile runs fill on a tar writer that ends in out, and digests what is written.
func writeLayerFile(out string, fill func(*tar.Writer) error) (Layer, error) {
	file, err := os.Create(out)
	if err != nil {
		return Layer{}, fmt.Errorf("create layer: %w", err)
	}
	defer file.Close()
	digest := sha256.New()
	tw := tar.NewWriter(io.MultiWriter(file, digest))
	if err := fill(tw); err != nil {
		return Layer{}, fmt.Errorf("write layer %s: %w", out, err)
	}
	if err := tw.Close(); err != nil {
		return Layer{}, fmt.Errorf("write layer %s: %w", out, err)
	}
	if err := file.Close(); err != nil {
		return Layer{}, fmt.Errorf("write layer %s: %w", out, err)
	}
	return Layer{Path: out, Digest: hex.EncodeToString(digest.Sum(nil))}, nil
}

func parents[V any](entries map[string]V) []string {
	seen := map[string]bool{}
	for name := range entries {
		for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
			seen[dir] = true
		}
	}
	return sortedKeys(seen)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func epoch() time.Time { return time.Unix(0, 0) }
