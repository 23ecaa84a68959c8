package node

import (
	"context"
	"encoding/json"

	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// volumeKey returns the key of an encrypted volume, unwrapped by the call's secrets or by a
// KMS of the node's own config.
func (s *Server) volumeKey(ctx context.Context, st *staging) (storage.Secret, error) {
	meta, err := st.conn.Images(st.context.Pool, st.context.RadosNamespace).Metadata(ctx, st.context.Image)
	if err != nil {
		return storage.Secret{}, err
	}
	var wrapped kms.Wrapped
	if err := json.Unmarshal([]byte(meta[kms.ImageMetadata]), &wrapped); err != nil {
		return storage.Secret{}, fault.New(fault.Precondition, "image %s/%s is to be encrypted, but its metadata %q holds no wrapped key: "+
			"it was removed behind Holdfast's back; the volume's record has it, too", st.context.Pool, st.context.Image, kms.ImageMetadata)
	}
	return s.cfg.KMS.Keyring(st.secrets).Unwrap(ctx, wrapped)
}
