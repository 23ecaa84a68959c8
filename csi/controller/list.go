package controller

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// tokenPattern is <cluster>/<name hash>: where the next page begins.
var tokenPattern = regexp.MustCompile(`^([A-Za-z0-9_-]{1,40})/([0-9a-f]{32})$`)

// ListVolumes lists the volumes of all clusters in the map, in the order of cluster
// and name hash, with the service's own credentials. A volume made or deleted between
// two pages may or may not be seen; all others are, once.
func (s *Server) ListVolumes(ctx context.Context, request *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	entries, next, err := list(ctx, s, request.GetMaxEntries(), request.GetStartingToken(), s.store, s.entries)
	if err != nil {
		return nil, err
	}
	return &csi.ListVolumesResponse{Entries: entries, NextToken: next}, nil
}

// maxPage is how many entries one answer holds at most, whatever is asked for: gRPC
// clients take 4 MiB, and an entry has up to 2 KiB.
const maxPage = 1000

// batch is how many records are read at a time.
const batch = 256

// pager collects the entries of one page.
type pager[E any] struct {
	server  *Server
	store   func(clustermap.Site) *record.Store
	convert func(context.Context, clustermap.Site, []*record.Record) []E // not every record has an entry
	room    int
	entries []E
	next    string
}

// list returns a page of at most `most` entries (0: as many as there may be) from token on,
// and the token of the next one.
func list[E any](ctx context.Context, s *Server, most int32, token string, store func(clustermap.Site) *record.Store,
	convert func(context.Context, clustermap.Site, []*record.Record) []E,
) ([]E, string, error) {
	if most < 0 {
		return nil, "", fault.New(fault.Invalid, "max_entries %d is negative", most)
	}
	var fromCluster, fromKey string
	if token != "" {
		parts := tokenPattern.FindStringSubmatch(token)
		if parts == nil {
			return nil, "", fault.New(fault.Token, "starting_token %q was not given out by this service", token)
		}
		fromCluster, fromKey = parts[1], parts[2]
	}
	clusters, err := s.Clusters.Clusters()
	if err != nil {
		return nil, "", err
	}
	p := pager[E]{server: s, store: store, convert: convert, room: int(most)}
	if p.room == 0 || p.room > maxPage {
		p.room = maxPage
	}
	for _, c := range clusters {
		if string(c.ID) < fromCluster || p.next != "" {
			continue
		}
		from := ""
		if string(c.ID) == fromCluster {
			from = fromKey
		}
		if err := p.add(ctx, c.ID, from); err != nil {
			return nil, "", err
		}
	}
	return p.entries, p.next, nil
}

// add adds a cluster's entries from key `from` on to the page.
func (p *pager[E]) add(ctx context.Context, id storage.ClusterID, from string) error {
	site, err := p.server.connect(ctx, id, nil)
	if err != nil {
		return err
	}
	store := p.store(site)
	keys, err := store.Keys(ctx)
	if err != nil {
		return err
	}
	start, _ := slices.BinarySearch(keys, from)
	keys = keys[start:]
	for len(keys) > 0 {
		if len(p.entries) >= p.room {
			p.next = string(id) + "/" + keys[0]
			return nil
		}
		n := min(len(keys), batch, p.room-len(p.entries))
		records, err := store.ReadAll(ctx, keys[:n], p.server.damaged)
		if err != nil {
			return err
		}
		keys = keys[n:]
		p.entries = append(p.entries, p.convert(ctx, site, records)...)
	}
	return nil
}

// damaged tells the log of a record that cannot be read, and is passed over.
func (s *Server) damaged(key string, err error) {
	s.Log.Error("record passed over", obs.KeyDriver, s.Backend.Driver(), "key", key, obs.KeyError, err)
}

// entries turns records into entries; those of volumes not yet made, or of another
// entry of the cluster map, are passed over.
func (s *Server) entries(ctx context.Context, site clustermap.Site, records []*record.Record) []*csi.ListVolumesResponse_Entry {
	made := slices.DeleteFunc(slices.Clone(records), func(r *record.Record) bool {
		return r == nil || r.State == record.Creating || !ofCluster(r, site.Entry.ID)
	})
	conditions := s.present(ctx, site, made)
	entries := make([]*csi.ListVolumesResponse_Entry, len(made))
	for i, r := range made {
		entries[i] = &csi.ListVolumesResponse_Entry{
			Volume: volumeOf(r, site.Entry.ID),
			Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: publishedNodes(r), VolumeCondition: withFences(r, conditions[i])},
		}
	}
	return entries
}

// present looks whether the volumes are there, a listing for many. What could not be
// looked at is not called well.
func (s *Server) present(ctx context.Context, site clustermap.Site, records []*record.Record) []*csi.VolumeCondition {
	conditions := make([]*csi.VolumeCondition, len(records))
	there, err := s.Backend.Present(ctx, site, records)
	for i, r := range records {
		switch {
		case r.State == record.Deleting:
			conditions[i] = &csi.VolumeCondition{Abnormal: true, Message: "the volume is being deleted"}
		case err != nil:
			conditions[i] = &csi.VolumeCondition{Abnormal: true, Message: "unknown: " + err.Error()}
		case !there[i]:
			conditions[i] = &csi.VolumeCondition{Abnormal: true, Message: fmt.Sprintf("%s is missing: it was removed behind Holdfast's back", r.BackendName())}
		default:
			conditions[i] = &csi.VolumeCondition{Message: "the volume is there"}
		}
	}
	return conditions
}

func publishedNodes(r *record.Record) []string {
	var nodes []string
	for _, n := range slices.Sorted(maps.Keys(r.Published)) {
		nodes = append(nodes, string(n))
	}
	return nodes
}

// condition is a volume's condition by its record and by what the backend sees.
func (s *Server) condition(ctx context.Context, site clustermap.Site, r *record.Record) (*csi.VolumeCondition, error) {
	if r.State == record.Deleting {
		return &csi.VolumeCondition{Abnormal: true, Message: "the volume is being deleted"}, nil
	}
	c, err := s.Backend.Condition(ctx, site, r)
	if err != nil {
		return nil, err
	}
	return &csi.VolumeCondition{Abnormal: c.Abnormal, Message: c.Message}, nil
}

// ControllerGetVolume returns one volume with its condition and nodes.
func (s *Server) ControllerGetVolume(ctx context.Context, request *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	h, err := s.handle(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	site, r, err := s.find(ctx, h, nil)
	if err != nil {
		return nil, err
	}
	condition, err := s.condition(ctx, site, r)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: volumeOf(r, h.Cluster),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: publishedNodes(r), VolumeCondition: withFences(r, condition)},
	}, nil
}

// GetCapacity tells what can still be provisioned with the given parameters.
func (s *Server) GetCapacity(ctx context.Context, request *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if len(request.GetVolumeCapabilities()) > 0 {
		if _, err := checkCapabilities(s.Backend.Driver(), request.GetVolumeCapabilities()); err != nil {
			return &csi.GetCapacityResponse{}, nil // none of it can be provisioned
		}
	}
	parameters, _ := splitParameters(request.GetParameters())
	cluster, err := s.clusterOf(parameters)
	if err != nil {
		return nil, err
	}
	site, err := s.connect(ctx, cluster, nil)
	if err != nil {
		return nil, err
	}
	available, err := s.capacity(ctx, site, parameters, request.GetAccessibleTopology())
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{AvailableCapacity: int64(available)}, nil
}
