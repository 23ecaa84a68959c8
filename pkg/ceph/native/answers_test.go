package native

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Answers of the volumes module of Ceph 16.2.15, shortened by what is not read.
const (
	answerInfo = `{"atime": "2026-11-22 20:08:45", "bytes_pcent": "0.00", "bytes_quota": 10485760, "bytes_used": 7,
		"data_pool": "cephfs.data", "features": ["snapshot-clone"], "gid": 0, "path": "/volumes/csi/c1/b3dd3091",
		"pool_namespace": "", "state": "complete", "type": "clone", "uid": 0}`
	answerInfoWithoutQuota = `{"bytes_pcent": "undefined", "bytes_quota": "infinite", "bytes_used": 0, "state": "complete"}`
	answerInfoRetired      = `{"features": ["snapshot-retention"], "mon_addrs": ["127.0.0.1:18601"], "state": "snapshot-retained", "type": "subvolume"}`
	answerPending          = `{"status": {"state": "pending", "source": {"volume": "cephfs", "subvolume": "sv", "snapshot": "s1", "group": "csi"}}}`
	answerCanceled         = `{"status": {"state": "canceled", "source": {"volume": "cephfs", "subvolume": "sv", "snapshot": "s1", "group": "csi"},
		"failure": {"errno": "4", "error_msg": "user interrupted clone operation"}}}`
	// Squid (doc/cephfs/fs-volumes.rst).
	answerProgress = `{"status": {"state": "in-progress", "source": {"volume": "cephfs", "subvolume": "subvol1", "snapshot": "snap1"},
		"progress_report": {"percentage cloned": "12.24%", "amount cloned": "376M/3.0G", "files cloned": "4/6"}}}`
	answerSnapshot       = `{"created_at": "2026-11-22 20:08:46.466079", "data_pool": "cephfs.data", "has_pending_clones": "no"}`
	answerSnapshotCopied = `{"created_at": "2026-11-22 20:08:46.466079", "data_pool": "cephfs.data", "has_pending_clones": "yes",
		"pending_clones": [{"name": "c2", "target_group": "csi"}]}`
	answerNames = `[{"name": "s2"}, {"name": "s1"}]`
)

func same[T any](t *testing.T, what string, expected T, got T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Fatalf("%s: %s", what, diff)
	}
}

func TestAnswersOfTheVolumesModuleAreRead(t *testing.T) {
	info, err := decodeSubvolumeInfo([]byte(answerInfo))
	same(t, "info", ceph.SubvolumeInfo{
		Path: "/volumes/csi/c1/b3dd3091", Quota: 10 * storage.MiB, Used: 7, DataPool: "cephfs.data", State: "complete",
	}, info, err)
	info, err = decodeSubvolumeInfo([]byte(answerInfoWithoutQuota))
	same(t, "info without a quota", ceph.SubvolumeInfo{State: "complete"}, info, err)
	info, err = decodeSubvolumeInfo([]byte(answerInfoRetired))
	same(t, "info of a retired subvolume", ceph.SubvolumeInfo{State: ceph.SubvolumeRetained}, info, err)

	status, err := decodeCloneStatus([]byte(answerPending))
	same(t, "pending", ceph.CloneStatus{State: ceph.ClonePending, Percent: -1}, status, err)
	status, err = decodeCloneStatus([]byte(answerCanceled))
	same(t, "canceled", ceph.CloneStatus{State: ceph.CloneCanceled, Percent: -1, Reason: "user interrupted clone operation"}, status, err)
	status, err = decodeCloneStatus([]byte(answerProgress))
	same(t, "progress", ceph.CloneStatus{State: ceph.CloneInProgress, Percent: 12}, status, err)

	names, err := decodePendingClones([]byte(answerSnapshot))
	same(t, "a snapshot at rest", []string{}, names, err)
	names, err = decodePendingClones([]byte(answerSnapshotCopied))
	same(t, "a snapshot that is copied", []string{"c2"}, names, err)
	names, err = decodeNames([]byte(answerNames))
	same(t, "names", []string{"s1", "s2"}, names, err)
}

func FuzzDecodeSubvolumeInfo(f *testing.F) {
	f.Add([]byte(answerInfo))
	f.Add([]byte(answerInfoWithoutQuota))
	f.Add([]byte(answerInfoRetired))
	f.Fuzz(func(t *testing.T, answer []byte) {
		info, err := decodeSubvolumeInfo(answer)
		if err != nil && info != (ceph.SubvolumeInfo{}) {
			t.Fatalf("%+v with %v", info, err)
		}
		if info.Quota < 0 || info.Used < 0 {
			t.Fatalf("negative size in %+v", info)
		}
	})
}

func FuzzDecodeCloneStatus(f *testing.F) {
	f.Add([]byte(answerPending))
	f.Add([]byte(answerCanceled))
	f.Add([]byte(answerProgress))
	f.Add([]byte(`{"status": {"state": "failed", "failure": {"errno": 28, "error_msg": 7}, "progress_report": {"percentage cloned": 1e9}}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		status, err := decodeCloneStatus(answer)
		switch {
		case err != nil && status != (ceph.CloneStatus{}):
			t.Fatalf("%+v with %v", status, err)
		case err == nil && (status.State == "" || status.Percent < -1 || status.Percent > 100):
			t.Fatalf("status %+v", status)
		}
	})
}

func FuzzDecodePendingClones(f *testing.F) {
	f.Add([]byte(answerSnapshot))
	f.Add([]byte(answerSnapshotCopied))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if names, err := decodePendingClones(answer); err == nil && !json.Valid(answer) {
			t.Fatalf("%v from what is no JSON", names)
		}
	})
}

func FuzzDecodeNames(f *testing.F) {
	f.Add([]byte(answerNames))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if names, err := decodeNames(answer); err == nil && !json.Valid(answer) {
			t.Fatalf("%v from what is no JSON", names)
		}
	})
}
