// Package fence is what the node service and the controller tell each other about the clients
// through which a node has a volume: small objects in the pool of the records, in RADOS namespaces
// of their own, of which a node's Ceph user may write the notes alone.
//
// Invariant: what a note names as clients may write to the volume until the note is gone or names
// them no more. A node writes its note before anything can be written through a client, and takes
// a client out only when it is gone from the machine. It must not import a CSI service.
package fence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Where notes and fences are.
const (
	Pool          = ".holdfast"
	NotesIn       = "nodes"  // RADOS namespace: written by nodes and controllers
	FencesIn      = "fences" // by controllers alone
	granule       = 1024     // as for records: a full pool takes what makes no object longer
	formatVersion = 1
)

// Lasting is how long a client stays on the blocklist that its node never answers for. Until it is
// over, or the node says that the client is gone, a machine that was cut off cannot come back and write.
const Lasting = 365 * 24 * time.Hour

// Client is one client through which a node has a volume, and no other volume.
type Client struct {
	Address ceph.ClientAddress `json:"address"`
	Mounter string             `json:"mounter"`
}

// Note says how a node has a volume. The node writes it; a controller that fences marks it.
type Note struct {
	Version int            `json:"version"`
	Node    storage.NodeID `json:"node"`
	Volume  string         `json:"volume"` // handle
	Boot    string         `json:"boot"`   // of the machine: with another one, all clients are gone
	Since   time.Time      `json:"since"`
	// Publication is that under which the volume is attached. With Fenced it has ended, and the
	// node may not attach the volume under it again.
	Publication string     `json:"publication,omitempty"`
	Attaching   string     `json:"attaching,omitempty"` // an attachment is being made; no client of it has written yet
	Clients     []Client   `json:"clients,omitempty"`
	Unknown     string     `json:"unknown,omitempty"` // mounter of a client whose address its machine does not tell
	Fenced      *time.Time `json:"fenced,omitempty"`  // when the volume was taken from the node, and its clients shut out
}

// Addresses returns the clients' addresses.
func (n *Note) Addresses() []ceph.ClientAddress {
	var list []ceph.ClientAddress
	for _, c := range n.Clients {
		list = append(list, c.Address)
	}
	return list
}

// Fence is what a controller does, or has done, about a node that did not let go of a volume.
type Fence struct {
	Version int                  `json:"version"`
	Node    storage.NodeID       `json:"node"`
	Volume  string               `json:"volume"`
	Clients []ceph.ClientAddress `json:"clients"`
	Since   time.Time            `json:"since"`
	By      string               `json:"by"`
}

// Name is what the object of a node and a volume is called; all of a node's begin with Prefix.
func Name(node storage.NodeID, volume string) string { return Prefix(node) + short(volume, 16) }

// Prefix begins the names of a node's objects.
func Prefix(node storage.NodeID) string { return short(string(node), 8) + "." }

func short(text string, size int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:size])
}

// Stored is a note or a fence as it was read, so that it is replaced as that or not at all.
type Stored[T any] struct {
	Value T
	name  string
	raw   []byte
}

// Store keeps notes (T is Note) or fences.
type Store[T any] struct{ objects ceph.Notes }

// Notes returns the notes of a cluster.
func Notes(c ceph.Cluster) Store[Note] { return Store[Note]{c.Notes(Pool, NotesIn)} }

// Fences returns the fences of a cluster.
func Fences(c ceph.Cluster) Store[Fence] { return Store[Fence]{c.Notes(Pool, FencesIn)} }

// Read returns what is kept under the name, nil without it.
func (s Store[T]) Read(ctx context.Context, name string) (*Stored[T], error) {
	raw, err := s.objects.Read(ctx, name)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	stored := &Stored[T]{name: name, raw: raw}
	var head struct {
		Version int `json:"version"`
	}
	if err := errors.Join(json.Unmarshal(raw, &head), json.Unmarshal(raw, &stored.Value)); err != nil {
		return nil, fault.New(fault.Precondition, "object %s/%s cannot be read: %w", Pool, name, err)
	}
	if head.Version != formatVersion {
		return nil, fault.New(fault.Precondition, "object %s/%s has version %d, this Holdfast knows version %d", Pool, name, head.Version, formatVersion)
	}
	return stored, nil
}

// Write replaces old, nil for none, by value: fault.Aborted when another was faster.
func (s Store[T]) Write(ctx context.Context, name string, old *Stored[T], value T) (*Stored[T], error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	missing := (granule - len(raw)%granule) % granule
	raw = append(raw, bytes.Repeat([]byte(" "), missing)...)
	var before []byte
	if old != nil {
		before = old.raw
	}
	if bytes.Equal(before, raw) {
		return old, nil
	}
	if err := s.objects.Swap(ctx, name, before, raw); err != nil {
		return nil, err
	}
	return &Stored[T]{Value: value, name: name, raw: raw}, nil
}

// Remove takes old away: fault.Aborted when it is something else by now.
func (s Store[T]) Remove(ctx context.Context, old *Stored[T]) error {
	return s.objects.Swap(ctx, old.name, old.raw, nil)
}

// List returns what is kept under names that begin with prefix; what goes meanwhile is left out.
func (s Store[T]) List(ctx context.Context, prefix string) ([]*Stored[T], error) {
	names, err := s.objects.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []*Stored[T]
	var damaged []error
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		stored, err := s.Read(ctx, name)
		switch {
		case errors.Is(err, fault.Precondition): // the others are as good
			damaged = append(damaged, err)
		case err != nil:
			return nil, err
		case stored != nil:
			list = append(list, stored)
		}
	}
	return list, errors.Join(damaged...)
}

// NewNote returns the note of a node that begins to attach a volume.
func NewNote(node storage.NodeID, volume, boot, publication, token string, now time.Time) Note {
	return Note{Version: formatVersion, Node: node, Volume: volume, Boot: boot, Since: now.UTC(), Publication: publication, Attaching: token}
}

// NewFence returns the fence of a note's clients.
func NewFence(n *Note, by string, now time.Time) Fence {
	return Fence{Version: formatVersion, Node: n.Node, Volume: n.Volume, Clients: n.Addresses(), Since: now.UTC(), By: by}
}
