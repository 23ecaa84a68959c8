package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/transfer"
)

// parseRBD reads rbd:POOL/IMAGE, rbd:POOL/NAMESPACE/IMAGE, with @SNAPSHOT behind it if that may be.
func parseRBD(text string, snapshot bool) (volumeapi.ImageName, error) {
	rest, ok := strings.CutPrefix(text, "rbd:")
	name, at, cut := strings.Cut(rest, "@")
	parts := strings.Split(name, "/")
	bad := !ok || len(parts) < 2 || len(parts) > 3 || cut && (at == "" || !snapshot)
	for _, p := range parts {
		bad = bad || p == ""
	}
	if bad {
		form := "rbd:POOL/IMAGE or rbd:POOL/NAMESPACE/IMAGE"
		if snapshot {
			form += ", with @SNAPSHOT or without"
		}
		return volumeapi.ImageName{}, fault.New(fault.Invalid, "%q is not %s", text, form)
	}
	n := volumeapi.ImageName{Pool: parts[0], Image: parts[len(parts)-1], Snapshot: at}
	if len(parts) == 3 {
		n.Namespace = parts[1]
	}
	return n, nil
}

// imagesClient returns a client of the services of the cluster in a directory.
func imagesClient(dir string) (*volumeapi.Client, error) {
	socket := volumeapi.Socket(dir)
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "there is no cluster with CSI services in %s: start one with `holdfast up --data-dir %s`, or name another with --data-dir", dir, dir)
	}
	return volumeapi.NewImagesClient(socket), nil
}

// sourceOf names the files of an image as they are now, so that an import goes on with the same alone.
func sourceOf(i *vdisk.Image) (string, error) {
	var parts []string
	for _, path := range append(append([]string{}, i.Files...), i.Parents...) {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("%s (%d bytes of %s)", filepath.Base(path), info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano)))
	}
	if i.Member != "" {
		parts = append(parts, i.Member)
	}
	return strings.Join(parts, ", "), nil
}

// rbdPlace is an image as the place of a copy.
type rbdPlace struct{ session *volumeapi.Session }

var _ transfer.Place = rbdPlace{}

func (p rbdPlace) Write(ctx context.Context, c transfer.Chunk, data []byte) error {
	return p.session.Write(ctx, c.Offset, data, c.Sum)
}

func (p rbdPlace) Keep(ctx context.Context, m transfer.Mark) error {
	return p.session.Keep(ctx, volumeapi.ImageMark(m))
}

func (p rbdPlace) Compare(ctx context.Context, from, to int64, chunks []transfer.Chunk) error {
	list := make([]volumeapi.ImageChunk, 0, len(chunks))
	for _, c := range chunks {
		list = append(list, volumeapi.ImageChunk{Offset: c.Offset, Length: c.Length, Sum: fmt.Sprintf("%x", c.Sum)})
	}
	return p.session.Compare(ctx, from, to, list)
}

const (
	// transferPatience is how long a transfer waits for services that do not answer, from the last progress on.
	transferPatience = 2 * time.Minute
	transferPause    = time.Second
)

// persist repeats a transfer that the services broke off by going away, for as long as it gets on between the breaks.
func persist(ctx context.Context, said io.Writer, moved func() bool, attempt func(context.Context) error) error {
	last, told := time.Now(), false
	for {
		err := attempt(ctx)
		if err == nil || !errors.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return err
		}
		if moved() {
			last, told = time.Now(), false
		}
		if time.Since(last) > transferPatience {
			return fmt.Errorf("%w; give the same command again, and it goes on where it was", err)
		}
		if !told {
			fmt.Fprintf(said, "\nthe services went away (%v): waiting for them\n", err)
			told = true
		}
		select {
		case <-time.After(transferPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isFilled reports whether an image is whole, and holds what is asked for.
func isFilled(ctx context.Context, client *volumeapi.Client, r volumeapi.ImportRequest) (bool, error) {
	look, err := client.Look(ctx, r.Name)
	if err != nil || look.Partial != nil || look.Import == nil {
		return false, err
	}
	return look.Import.Complete && look.Import.Source == r.Source && look.Import.Size == int64(r.Disk), nil
}

// fill copies the disk of an image file into an RBD image.
func fill(ctx context.Context, client *volumeapi.Client, i *vdisk.Image, request volumeapi.ImportRequest, said io.Writer) (done volumeapi.ImageFinished, digest string, err error) {
	bar := newBar(said, "imported")
	defer bar.close()
	moved := false
	copier := &transfer.Copier{From: i, Progress: func(done, total int64) {
		moved = true
		bar.show(done, total)
	}}
	err = persist(ctx, said, func() bool { was := moved; moved = false; return was }, func(ctx context.Context) (err error) {
		session, mark, err := client.Import(ctx, request)
		if errors.Is(err, fault.Exists) && (request.Finishing || request.Name.Volume != "") {
			// The answer to Finish was lost, or the same command, given twice, was faster.
			if filled, lookErr := isFilled(ctx, client, request); lookErr != nil || filled {
				return lookErr
			}
		}
		if err != nil {
			return err
		}
		request.Restart = false // what is there from now on is our own
		defer func() { err = errors.Join(err, session.Close()) }()
		if mark.UpTo > 0 {
			fmt.Fprintf(said, "goes on at %s\n", storage.Bytes(mark.UpTo))
		}
		whole, err := copier.Run(ctx, rbdPlace{session}, transfer.Mark(mark))
		if err != nil {
			return err
		}
		digest, request.Finishing = whole.Digest, true
		done, err = session.Finish(ctx)
		return err
	})
	return done, digest, err
}
