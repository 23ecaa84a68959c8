package controller

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/flight"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// DefaultSize is a volume's size when the request names none.
const DefaultSize = storage.GiB

// maxName is CSI's limit for a name, in bytes.
const maxName = 128

// ownerPrefix marks parameters that external-provisioner adds (--extra-create-metadata).
const ownerPrefix = "csi.storage.k8s.io/"

// CreateVolume makes a volume, finishes one that was begun, or returns the one there is.
func (s *Server) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	response, err := s.createVolume(ctx, request)
	s.refused.note(record.KindVolume, request.GetName(), request.GetParameters(), err, s.Now())
	return response, err
}

func (s *Server) createVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	fresh, cluster, err := s.freshRecord(request)
	if err != nil {
		return nil, err
	}
	key := volumeid.Hash(fresh.Driver, fresh.Kind, fresh.Name)
	r, err := flight.Do(ctx, s.flights, key, func(ctx context.Context) (*record.Record, error) {
		site, err := s.connect(ctx, cluster, request.GetSecrets())
		if err != nil {
			return nil, err
		}
		return s.create(ctx, site, key, fresh, request.GetCapacityRange())
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: volumeOf(r, cluster)}, nil
}

// freshRecord validates the request and returns the record of the volume that it asks for.
func (s *Server) freshRecord(request *csi.CreateVolumeRequest) (*record.Record, storage.ClusterID, error) {
	if err := checkName(request.GetName()); err != nil {
		return nil, "", err
	}
	block, err := checkCapabilities(s.Backend.Driver(), request.GetVolumeCapabilities())
	if err != nil {
		return nil, "", err
	}
	origin, err := s.originOf(request.GetVolumeContentSource())
	if err != nil {
		return nil, "", err
	}
	if len(request.GetMutableParameters()) > 0 {
		return nil, "", fault.New(fault.Invalid, "mutable parameters: this driver does not announce MODIFY_VOLUME")
	}
	parameters, owner := splitParameters(request.GetParameters())
	places, err := s.placesFor(parameters, request.GetAccessibilityRequirements())
	if err != nil {
		return nil, "", err
	}
	cluster, err := s.clusterOf(parameters)
	if err != nil {
		return nil, "", err
	}
	if err := checkReadOnly(parameters, origin, request.GetVolumeCapabilities()); err != nil {
		return nil, "", err
	}
	size, err := s.sizeFor(request.GetCapacityRange())
	if err != nil {
		return nil, "", err
	}
	return &record.Record{
		Version: 1, Kind: record.KindVolume, Driver: s.Backend.Driver(), Name: request.GetName(),
		Incarnation: newIncarnation(), State: record.Creating, Size: size, Block: block,
		FsType:     request.GetVolumeCapabilities()[0].GetMount().GetFsType(),
		Parameters: parameters, Places: places, Owner: owner, Created: s.Now().UTC(),
		Origin: origin, ReadOnly: parameters[backingSnapshot] == "true",
	}, cluster, nil
}

func newIncarnation() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // crypto/rand never fails (it ends the program)
	return hex.EncodeToString(id[:])
}

func checkName(name string) error {
	switch {
	case name == "":
		return fault.New(fault.Invalid, "name is missing")
	case len(name) > maxName:
		return fault.New(fault.Invalid, "name has %d bytes, CSI allows %d", len(name), maxName)
	case !utf8.ValidString(name):
		return fault.New(fault.Invalid, "name is not UTF-8")
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fault.New(fault.Invalid, "name %q has a control character", name)
		}
	}
	return nil
}

// splitParameters parts what the StorageClass says from what the provisioner adds
// about the claim.
func splitParameters(all map[string]string) (parameters, owner map[string]string) {
	parameters, owner = map[string]string{}, map[string]string{}
	for key, value := range all {
		if rest, ok := strings.CutPrefix(key, ownerPrefix); ok {
			owner[rest] = value
		} else {
			parameters[key] = value
		}
	}
	return parameters, owner
}

// clusterOf returns the cluster that the parameters name; with one cluster in the map
// they need not.
func (s *Server) clusterOf(parameters map[string]string) (storage.ClusterID, error) {
	if id := parameters["clusterID"]; id != "" {
		cluster, err := s.Clusters.Cluster(storage.ClusterID(id))
		return cluster.ID, err
	}
	list, err := s.Clusters.Clusters()
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fault.New(fault.Invalid, "parameter \"clusterID\" is missing, and the cluster map has %d clusters to choose from", len(list))
	}
	return list[0].ID, nil
}

// sizeFor returns the size for a capacity range, rounded up as the backend needs.
func (s *Server) sizeFor(r *csi.CapacityRange) (storage.Bytes, error) {
	required, limit := storage.Bytes(r.GetRequiredBytes()), storage.Bytes(r.GetLimitBytes())
	switch {
	case required < 0 || limit < 0:
		return 0, fault.New(fault.Range, "capacity range %d to %d is negative", required, limit)
	case limit > 0 && required > limit:
		return 0, fault.New(fault.Range, "required_bytes %d is above limit_bytes %d", required, limit)
	case required == 0 && limit > 0 && limit < DefaultSize:
		required = 1
	case required == 0:
		required = DefaultSize
	}
	size := s.Backend.Round(required)
	if size < required || limit > 0 && size > limit {
		return 0, fault.New(fault.Range, "a volume of %d bytes would round up to %d, which is above limit_bytes %d", required, size, limit)
	}
	return size, nil
}

// create takes the record and brings the volume to Ready.
func (s *Server) create(ctx context.Context, site clustermap.Site, key string, fresh *record.Record, asked *csi.CapacityRange) (*record.Record, error) {
	// A volume that is there already is returned, and one that was begun is finished, whatever
	// its pool or source has become since.
	existing, err := s.store(site).Read(ctx, key)
	if err == nil && existing.State == record.Ready {
		return existing, compatible(existing, fresh, asked)
	}
	if errors.Is(err, fault.NotFound) {
		err = s.plan(ctx, site, fresh, asked)
	}
	if err != nil {
		return nil, err
	}
	work, held, err := take(ctx, s.store(site), key, fresh, existing != nil)
	if err != nil {
		return nil, err
	}
	if held.Record.State == record.Deleting {
		// A deletion was cut off and nobody asked for it again: finish it, begin anew.
		err := held.Outcome(s.finishDelete(work, site, held))
		held.Release(ctx)
		if err != nil {
			return nil, err
		}
		return s.create(ctx, site, key, fresh, asked)
	}
	defer held.Release(ctx)
	if err := compatible(held.Record, fresh, asked); err != nil {
		return nil, err
	}
	if held.Record.State == record.Ready {
		return held.Record, nil
	}
	if err := held.Outcome(s.finishCreate(work, site, held)); err != nil {
		s.suspect(ctx, site, key, held)
		return nil, err
	}
	if held.Record.Flatten {
		s.janitor.flatten(site, key)
	}
	s.log(held.Record).Info("volume created")
	return held.Record, nil
}

// plan completes the record of a volume that is not there yet.
func (s *Server) plan(ctx context.Context, site clustermap.Site, fresh *record.Record, asked *csi.CapacityRange) error {
	if fresh.Origin != nil {
		if err := s.resolve(ctx, site, fresh, asked); err != nil {
			return err
		}
	}
	if err := s.planPlace(ctx, site, fresh); err != nil {
		return err
	}
	for key, value := range fresh.Owner { // for people, who look at the PersistentVolume
		fresh.Context[ownerPrefix+key] = value
	}
	return nil
}

// take returns the record under key with its lease: made from fresh, or the one that was seen
// there before. fault.Aborted when that one is gone now.
func take(ctx context.Context, store *record.Store, key string, fresh *record.Record, seen bool) (context.Context, *record.Held, error) {
	if !seen {
		work, held, made, err := store.Acquire(ctx, key, fresh)
		if err == nil {
			held.Record.Resumed = !made
		}
		return work, held, err
	}
	work, held, err := store.Hold(ctx, key)
	switch {
	case err == nil:
		held.Record.Resumed = true
	case errors.Is(err, fault.NotFound):
		err = fault.New(fault.Aborted, "%s %q was taken back by another controller; ask again", fresh.Kind, fresh.Name)
	}
	return work, held, err
}

// finishCreate makes what the record describes. After an error that a retry cannot
// mend it takes back what it made, so that nothing is left of a volume that will
// never be asked for again.
func (s *Server) finishCreate(ctx context.Context, site clustermap.Site, held *record.Held) error {
	var err error
	if held.Record.ReadOnly {
		err = s.takeHold(ctx, site, held.Record)
	}
	if err == nil {
		err = s.build(ctx, site, held)
	}
	if err == nil {
		held.Record.State = record.Ready
		return held.Finish(ctx)
	}
	if passing(err) {
		return err
	}
	if undo := s.finishDelete(ctx, site, held); undo != nil {
		// Not a final answer: the caller must come back, or what is left stays for ever.
		return fault.New(fault.Unavailable, "%v; taking back what was made: %v", err, undo)
	}
	return err
}

// build has the backend make the volume, under a new incarnation where a cut off call left
// something doubtful. The lease is checked with that change, so an overtaken controller
// comes to no removal.
func (s *Server) build(ctx context.Context, site clustermap.Site, held *record.Held) error {
	err := s.discard(ctx, site, held.Record)
	if err == nil {
		err = s.begin(ctx, site, held.Record)
	}
	if !errors.Is(err, record.ErrUnsure) {
		return err
	}
	held.Record.Abandon(newIncarnation())
	if err := held.Save(ctx); err != nil {
		return err
	}
	if err := s.discard(ctx, site, held.Record); err != nil {
		return err
	}
	return s.begin(ctx, site, held.Record)
}

// begin has the backend make the volume; the clone of an image while nobody deletes that: see holdVolume.
func (s *Server) begin(ctx context.Context, site clustermap.Site, r *record.Record) error {
	work := func(ctx context.Context) error { return s.Backend.Create(ctx, site, r) }
	if r.Driver != storage.RBD || r.Origin == nil || r.Origin.Kind != record.KindVolume {
		return work(ctx)
	}
	return s.holdVolume(ctx, site, r, work)
}

// discard removes what is left of the incarnations that were given up.
func (s *Server) discard(ctx context.Context, site clustermap.Site, r *record.Record) error {
	for _, incarnation := range r.Abandoned {
		old := *r
		old.Incarnation = incarnation
		if err := s.Backend.Delete(ctx, site, &old); err != nil {
			return fault.New(fault.Unavailable, "remove what an earlier call left (%s); ask again: %v", old.BackendName(), err)
		}
		s.janitor.wake(site, incarnation)
	}
	r.Abandoned = nil
	return nil
}

// passing reports whether a retry of the same call may succeed. The classes are those
// after which external-provisioner asks again rather than forget the volume.
func passing(err error) bool {
	for _, class := range []error{fault.Unavailable, fault.Aborted, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// compatible reports whether the volume there is is the one asked for: fault.Exists
// naming the difference if not.
func compatible(have, want *record.Record, asked *csi.CapacityRange) error {
	differs := func(what string, is, asked any) error {
		return fault.New(fault.Exists, "volume %q exists with %s %v, asked for was %v", want.Name, what, is, asked)
	}
	required, limit := storage.Bytes(asked.GetRequiredBytes()), storage.Bytes(asked.GetLimitBytes())
	switch {
	case have.Size < required:
		return differs("size in bytes", int64(have.Size), int64(required))
	case limit > 0 && have.Size > limit:
		return differs("size in bytes", int64(have.Size), int64(limit))
	case have.FsType != want.FsType && have.FsType != "" && want.FsType != "":
		return differs("file system", have.FsType, want.FsType)
	case have.Block != want.Block:
		return differs("raw block access", have.Block, want.Block)
	case have.Origin.Source() != want.Origin.Source():
		return differs("source", have.Origin.Source(), want.Origin.Source())
	case !fits(have, want):
		return differs("place", have.Place, want.Places)
	case !maps.Equal(have.Parameters, want.Parameters):
		return differs("parameters", have.Parameters, want.Parameters)
	}
	return nil
}

// volumeOf is CSI's form of a ready volume.
func volumeOf(r *record.Record, cluster storage.ClusterID) *csi.Volume {
	return &csi.Volume{
		VolumeId: r.Handle(cluster).String(), CapacityBytes: int64(r.Size), VolumeContext: r.Context,
		ContentSource: contentSource(r.Origin), AccessibleTopology: accessibleFrom(r),
	}
}
