package standalone

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// secretNames are the sections of csi-sanity's secrets file, by who makes the call.
var secretNames = map[string][]string{
	daemon.Provisioner: {
		"CreateVolumeSecret", "DeleteVolumeSecret", "ControllerPublishVolumeSecret", "ControllerUnpublishVolumeSecret",
		"ControllerValidateVolumeCapabilitiesSecret", "ControllerExpandVolumeSecret",
		"CreateSnapshotSecret", "DeleteSnapshotSecret", "ListSnapshotsSecret",
	},
	daemon.Node: {"NodeStageVolumeSecret", "NodePublishVolumeSecret"},
}

// opensVolumes are the sections that need the passphrase of encrypted volumes.
var opensVolumes = []string{"CreateVolumeSecret", "NodeStageVolumeSecret"}

// writeCSIFiles writes what a CSI client needs: the cluster map, parameters, secrets.
func (s *Supervisor) writeCSIFiles(context.Context) error {
	provisioner, err := s.readKey(daemon.Provisioner)
	if err != nil {
		return err
	}
	node, err := s.readKey(daemon.Node)
	if err != nil {
		return err
	}
	users := map[string]daemon.Entity{
		daemon.Provisioner: {Name: daemon.Provisioner, Key: provisioner},
		daemon.Node:        {Name: daemon.Node, Key: node},
	}
	credentials := filepath.Join(s.csiDir(), "credentials", s.state.FSID)
	for path, mode := range map[string]os.FileMode{s.csiDir(): 0o755, filepath.Dir(credentials): 0o700, credentials: 0o700} {
		if err := os.MkdirAll(path, mode); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	files, err := s.csiFiles(users)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := writeIfChanged(filepath.Join(s.csiDir(), f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

type csiFile struct {
	name string
	data []byte
	mode os.FileMode
}

func (s *Supervisor) csiFiles(users map[string]daemon.Entity) ([]csiFile, error) {
	config, err := s.clusterMap()
	if err != nil {
		return nil, err
	}
	passphrase, err := s.passphrase()
	if err != nil {
		return nil, err
	}
	secrets := map[string]map[string]string{}
	for user, names := range secretNames {
		for _, name := range names {
			secrets[name] = credentials(users[user])
			if slices.Contains(opensVolumes, name) {
				secrets[name][kms.Passphrase] = passphrase.Reveal()
			}
		}
	}
	kubernetes, err := kubernetesObjects(s.state.FSID, config, users, passphrase)
	if err != nil {
		return nil, err
	}
	provisioner := users[daemon.Provisioner]
	own := filepath.Join("credentials", s.state.FSID)
	files := []csiFile{
		{"config.json", config, 0o644},
		{filepath.Join(own, "userID"), []byte(provisioner.User()), 0o600},
		{filepath.Join(own, "userKey"), []byte(provisioner.Key.Reveal()), 0o600},
		{"kubernetes.yaml", kubernetes, 0o600},
	}
	for name, value := range map[string]any{
		"secrets.yaml":         secrets,
		"rbd-params.yaml":      map[string]string{"clusterID": s.state.FSID, "pool": daemon.PoolRBD},
		"cephfs-params.yaml":   map[string]string{"clusterID": s.state.FSID, "fsName": daemon.Filesystem},
		"snapshot-params.yaml": map[string]string{"clusterID": s.state.FSID},
	} {
		data, err := yaml.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		mode := os.FileMode(0o644)
		if name == "secrets.yaml" {
			mode = 0o600
		}
		files = append(files, csiFile{name, data, mode})
	}
	return files, nil
}

func credentials(e daemon.Entity) map[string]string {
	return map[string]string{"userID": e.User(), "userKey": e.Key.Reveal()}
}

// clusterMap is config.json in ceph-csi's form.
func (s *Supervisor) clusterMap() ([]byte, error) {
	type cephFS struct {
		SubvolumeGroup string `json:"subvolumeGroup"`
	}
	type entry struct {
		ClusterID storage.ClusterID `json:"clusterID"`
		Monitors  []string          `json:"monitors"`
		CephFS    cephFS            `json:"cephFS"`
	}
	data, err := json.MarshalIndent([]entry{{
		ClusterID: storage.ClusterID(s.state.FSID), Monitors: s.config.MonitorAddresses(),
		CephFS: cephFS{daemon.SubvolumeGroup},
	}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the cluster map: %w", err)
	}
	return append(data, '\n'), nil
}
