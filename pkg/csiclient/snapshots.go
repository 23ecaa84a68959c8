package csiclient

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Snapshot is a snapshot as the drivers list it.
type Snapshot struct {
	ID      string         `json:"id"`
	Driver  storage.Driver `json:"driver"`
	Volume  string         `json:"volume"` // id of the volume that it was taken of, which may be gone
	Bytes   storage.Bytes  `json:"bytes"`
	Created time.Time      `json:"created"`
}

func snapshotOf(driver storage.Driver, s *csi.Snapshot) Snapshot {
	return Snapshot{
		ID: s.GetSnapshotId(), Driver: driver, Volume: s.GetSourceVolumeId(),
		Bytes: storage.Bytes(s.GetSizeBytes()), Created: s.GetCreationTime().AsTime(),
	}
}

// Snapshot takes a snapshot of a volume, or returns the one of that name.
func (c *Client) Snapshot(ctx context.Context, v Volume, name string) (Snapshot, error) {
	response, err := c.controller(v.Driver).CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
		Name: name, SourceVolumeId: v.ID, Secrets: c.secrets["CreateSnapshotSecret"],
	})
	if err != nil {
		return Snapshot{}, explain("take snapshot "+name, err)
	}
	return snapshotOf(v.Driver, response.GetSnapshot()), nil
}

// Snapshots lists the snapshots of both drivers; of one volume unless its id is empty.
func (c *Client) Snapshots(ctx context.Context, volume string) ([]Snapshot, error) {
	list := []Snapshot{}
	for _, driver := range Drivers {
		token := ""
		for {
			response, err := c.controller(driver).ListSnapshots(ctx, &csi.ListSnapshotsRequest{
				MaxEntries: pageSize, StartingToken: token, SourceVolumeId: volume, Secrets: c.secrets["ListSnapshotsSecret"],
			})
			if err != nil {
				return nil, explain("list snapshots", err)
			}
			for _, e := range response.GetEntries() {
				list = append(list, snapshotOf(driver, e.GetSnapshot()))
			}
			if token = response.GetNextToken(); token == "" {
				break
			}
		}
	}
	return list, nil
}

// FindSnapshot returns the snapshot with the id.
func (c *Client) FindSnapshot(ctx context.Context, id string) (Snapshot, error) {
	for _, driver := range Drivers {
		response, err := c.controller(driver).ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: id, Secrets: c.secrets["ListSnapshotsSecret"]})
		if err != nil {
			return Snapshot{}, explain("look for snapshot "+id, err)
		}
		for _, e := range response.GetEntries() {
			return snapshotOf(driver, e.GetSnapshot()), nil
		}
	}
	return Snapshot{}, fault.New(fault.NotFound, "there is no snapshot %q: `holdfast volume snapshot list` shows those there are", id)
}

// DeleteSnapshot removes a snapshot. Volumes made from it live on.
func (c *Client) DeleteSnapshot(ctx context.Context, s Snapshot) error {
	_, err := c.controller(s.Driver).DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: s.ID, Secrets: c.secrets["DeleteSnapshotSecret"]})
	return explain("delete snapshot "+s.ID, err)
}
