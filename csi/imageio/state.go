package imageio

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// stateKey is where an image's metadata tell of the import that fills or filled it.
const stateKey = "holdfast.import"

// readState returns what an image tells of an import: nil if it tells of none. fault.NotFound without the image.
func readState(ctx context.Context, images ceph.Images, name string) (*volumeapi.Import, error) {
	pairs, err := images.Metadata(ctx, name)
	if err != nil || pairs[stateKey] == "" {
		return nil, err
	}
	var state volumeapi.Import
	if err := json.Unmarshal([]byte(pairs[stateKey]), &state); err != nil {
		return nil, fault.New(fault.Precondition, "image %s: its note of an import (%s) cannot be read: remove the image, and import again", name, stateKey)
	}
	return &state, nil
}

func encodeState(state volumeapi.Import) (map[string]string, error) {
	text, err := json.Marshal(state)
	return map[string]string{stateKey: string(text)}, err
}

// empty reports whether an image holds nothing at all.
func empty(ctx context.Context, images ceph.Images, name string) (bool, error) {
	full := errors.New("it holds something")
	err := images.Diff(ctx, name, "", "", 0, 0, func(e ceph.Extent) error {
		if e.Zero {
			return nil
		}
		return full
	})
	if errors.Is(err, full) {
		return false, nil
	}
	return err == nil, err
}
