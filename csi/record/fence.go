package record

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Fence says that a node was cut off from the volume: its clients are on the cluster's blocklist.
type Fence struct {
	Clients []ceph.ClientAddress `json:"clients"`
	Since   time.Time            `json:"since"`
	By      string               `json:"by"`
}

// SetFence notes a fence, or with nil that there is none any more.
func (r *Record) SetFence(node storage.NodeID, f *Fence) {
	fences := maps.Clone(r.Fences)
	if fences == nil {
		fences = map[storage.NodeID]Fence{}
	}
	delete(fences, node)
	if f != nil {
		fences[node] = *f
	}
	r.Fences = fences
}

// Fenced says in words which nodes are fenced, "" when none is.
func (r *Record) Fenced() string {
	var words []string
	for _, node := range slices.Sorted(maps.Keys(r.Fences)) {
		f := r.Fences[node]
		addresses := make([]string, len(f.Clients))
		for i, c := range f.Clients {
			addresses[i] = string(c)
		}
		words = append(words, fmt.Sprintf("fenced node %s since %s (client %s)", node, f.Since.UTC().Format(time.RFC3339), strings.Join(addresses, ", ")))
	}
	return strings.Join(words, "; ")
}
