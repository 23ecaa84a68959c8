package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	rwo  = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	many = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	rox  = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
)

func TestAVolumeIsFormattedOnceWhateverIsRepeated(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.must(r.stageAs(mounted("", many)))
		r.must(r.publishAt("a", mounted("", many)))
		r.restart()
	}
	_, err := r.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: r.volume, TargetPath: filepath.Join(r.machine.dir, "a")})
	r.must(err)
	r.must(r.unstageIt())
	r.must(r.unstageIt())
	r.must(r.stageAs(mounted("", many)))
	if n := r.machine.count("mkfs.ext4"); n != 1 {
		t.Errorf("mkfs ran %d times", n)
	}
}

func TestManyCallsOnOneVolumeWaitForEachOther(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := r.stageAs(mounted("", many)); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if n := r.machine.count("mkfs.ext4"); n != 1 {
		t.Errorf("mkfs ran %d times", n)
	}
}

func TestWhatADeviceCarriesDecidesAboutMkfs(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string // on the device
		state   string // in the metadata; the file system is ext4
		ask     *csi.VolumeCapability
		class   error // nil: staged
		mkfs    int
	}{
		{"nothing: it is formatted", "", "", mounted("", rwo), nil, 1},
		{"nothing, and a reader: refused", "", "", mounted("", rox), fault.Precondition, 0},
		{"nothing, but it was formatted: its data is lost", "", "done", mounted("", rwo), fault.Precondition, 0},
		{"an ext4 that somebody else made: mounted", "blkid:USAGE=filesystem,TYPE=ext4", "", mounted("", rwo), nil, 0},
		{"another file system than asked for: refused", "blkid:USAGE=filesystem,TYPE=ext4", "done", mounted("xfs", rwo), fault.Precondition, 0},
		{"a file system that is not mounted here: refused", "blkid:USAGE=filesystem,TYPE=btrfs", "", mounted("", rwo), fault.Precondition, 0},
		{"encryption: refused", "blkid:USAGE=crypto,TYPE=crypto_LUKS", "", mounted("", rwo), fault.Precondition, 0},
		{"a partition table: refused", "blkid:PTTYPE=gpt", "", mounted("", rwo), fault.Precondition, 0},
		{"data that blkid does not know: refused", "precious", "", mounted("", rwo), fault.Precondition, 0},
		{"what an unfinished mkfs left: made again", "blkid:USAGE=filesystem,TYPE=ext4", "started", mounted("", rwo), nil, 1},
		{"nothing yet of a begun mkfs: made again", "", "started", mounted("", rwo), nil, 1},
		{"another file system than the begun mkfs makes: left as it is", "blkid:USAGE=filesystem,TYPE=xfs", "started", mounted("", rwo), nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if c.state != "" {
				r.must(r.images.SetMetadata(t.Context(), r.image, map[string]string{metaState: c.state, metaFS: "ext4", metaImage: r.image}))
			}
			device, err := r.machine.Attach(t.Context(), attach.Image{Name: r.image})
			r.must(err)
			r.must(put(device.Path, c.content))
			if err := r.stageAs(c.ask); !errors.Is(err, c.class) {
				t.Errorf("got %v, want %v", err, c.class)
			}
			if n := r.machine.count("mkfs.ext4") + r.machine.count("mkfs.xfs"); n != c.mkfs {
				t.Errorf("mkfs ran %d times, want %d", n, c.mkfs)
			}
		})
	}
}

func TestWhatTheSourceHadSaysNothingOfAClone(t *testing.T) {
	r := newRig(t)
	r.must(r.images.SetMetadata(t.Context(), r.image, map[string]string{metaState: stateDone, metaFS: "ext4", metaImage: "hf-source"}))
	r.must(r.stageAs(mounted("ext4", rwo)))
	if n := r.machine.count("mkfs.ext4"); n != 1 {
		t.Errorf("mkfs ran %d times on the clone of an empty image, want once", n)
	}
}

func TestAFailedMkfsIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.machine.fail["mkfs.ext4"] = &command.ExitError{Cmd: "mkfs.ext4", Code: 1}
	if err := r.stageAs(mounted("", rwo)); err == nil {
		t.Fatal("staged without a file system")
	}
	if len(r.machine.attached) != 0 {
		t.Error("the device stays attached after a failed staging")
	}
	meta, err := r.images.Metadata(t.Context(), r.image)
	r.must(err)
	if meta[metaState] != stateStarted {
		t.Errorf("the state is %q, want started", meta[metaState])
	}
	delete(r.machine.fail, "mkfs.ext4")
	r.must(r.stageAs(mounted("", rwo)))
}

func TestAProbeThatFailsIsNoPermissionToFormat(t *testing.T) {
	for _, code := range []int{1, 4, 8, -1} {
		r := newRig(t)
		r.machine.fail["blkid"] = &command.ExitError{Cmd: "blkid", Code: code}
		if err := r.stageAs(mounted("", rwo)); err == nil || r.machine.count("mkfs.ext4") != 0 {
			t.Errorf("blkid's exit code %d: got %v", code, err)
		}
	}
}

func TestErrorsThatFsckCannotMendAreNotMounted(t *testing.T) {
	r := newRig(t)
	r.machine.fail["e2fsck"] = &command.ExitError{Cmd: "e2fsck", Code: 4}
	r.wants(r.stageAs(mounted("", rwo)), fault.Precondition)
	r.machine.fail["e2fsck"] = &command.ExitError{Cmd: "e2fsck", Code: 1} // corrected
	r.must(r.stageAs(mounted("", rwo)))
}

func TestAnotherClientOfTheImageIsNamed(t *testing.T) {
	r := newRig(t)
	r.ceph.Watch("rbd", "", r.image, ceph.Watcher{Address: "192.0.2.7:0/123", Client: 9})
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	_, err := r.NodeStageVolume(ctx, r.request(mounted("", rwo)))
	if r.wants(err, fault.Precondition); err == nil || !strings.Contains(err.Error(), "192.0.2.7:0/123") {
		t.Errorf("got %v, want the watcher's address", err)
	}
	if len(r.machine.attached) != 0 {
		t.Error("attached in spite of it")
	}
}

func TestABrokenAttachmentIsMadeAnewAndAnUnknownOneLeftAlone(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", many)))
	r.machine.trouble = fault.New(fault.Unavailable, "the attach daemon does not answer")
	r.wants(r.stageAs(mounted("", many)), fault.Unavailable)
	if r.machine.table[r.staging] == nil {
		t.Fatal("a mount that may well work was taken down")
	}
	stats := &csi.NodeGetVolumeStatsRequest{VolumeId: r.volume, VolumePath: r.staging}
	answer, err := r.NodeGetVolumeStats(t.Context(), stats)
	r.must(err)
	if !answer.GetVolumeCondition().GetAbnormal() {
		t.Error("the volume's condition is not told")
	}
	r.machine.trouble = attach.Lost("the helper died")
	r.wants(r.publishAt("a", mounted("", many)), fault.Precondition)
	r.must(r.stageAs(mounted("", many)))
	answer, err = r.NodeGetVolumeStats(t.Context(), stats)
	r.must(err)
	if answer.GetVolumeCondition().GetAbnormal() || len(answer.GetUsage()) != 2 {
		t.Errorf("after the cure: %v", answer)
	}
}

func TestAfterARebootNothingCountsAsStaged(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", many)))
	r.must(r.publishAt("a", mounted("", many)))
	clear(r.machine.table)
	clear(r.machine.attached)
	r.boot = "another boot"
	r.wants(r.publishAt("a", mounted("", many)), fault.Precondition)
	r.must(r.unstageIt())
	r.must(r.stageAs(mounted("", many)))
	r.must(r.publishAt("a", mounted("", many)))
}

func TestSecondTargetsFollowTheTableOfTheSpecification(t *testing.T) {
	for m, class := range map[capability.Mode]error{rwo: fault.Precondition, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER: fault.Precondition, many: nil} {
		r := newRig(t)
		r.must(r.stageAs(mounted("", m)))
		r.must(r.publishAt("a", mounted("", m)))
		if err := r.publishAt("b", mounted("", m)); !errors.Is(err, class) {
			t.Errorf("%s: a second target: got %v, want %v", m, err, class)
		}
	}
	r := newRig(t)
	r.wants(r.publishAt("a", mounted("", many)), fault.Precondition) // not staged
	r.must(r.stageAs(mounted("", many)))
	r.must(r.publishAt("a", mounted("", many)))
	r.wants(r.unstageIt(), fault.Precondition) // still published
	r.wants(r.stageAs(mounted("", rwo)), fault.Exists)
}

func TestRequestsWithoutWhatTheyNeedAreInvalidAndUnknownVolumesNotFound(t *testing.T) {
	r := newRig(t)
	ctx, c := t.Context(), mounted("", rwo)
	stage := func(id, path string, c *csi.VolumeCapability) error {
		_, err := r.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: path, VolumeCapability: c})
		return err
	}
	for name, err := range map[string]error{
		"no volume id": stage("", "/s", c), "no path": stage("x", "", c), "no capability": stage("x", "/s", nil),
		"a relative path": stage("x", "s", c), "no access type": stage("x", "/s", &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: rwo}}),
		"many writers of a file system on an image": stage("x", "/s", mounted("", csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)),
		"an unknown file system":                    stage("x", "/s", mounted("ntfs", rwo)),
	} {
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	r.wants(stage("x", "/s", c), fault.NotFound)
	r.wants(stage(strings.Replace(r.volume, ".r.", ".c.", 1), "/s", c), fault.NotFound)
	_, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: r.volume, VolumePath: "some/path"})
	r.wants(err, fault.NotFound)
	_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: r.volume, VolumePath: "some/path"})
	r.wants(err, fault.NotFound)
}

// The name by which ceph-csi called the cluster is taken out of the cluster map while a pod has the volume.
func TestAForeignVolumeCanLeaveWithoutTheClusterMap(t *testing.T) {
	r := newRig(t)
	f := volumeid.Foreign{Cluster: "old", Location: 4, UUID: "7957e938-405a-11eb-bfd0-0050563001a1"}
	r.volume = f.String()
	request := r.request(mounted("", rwo))
	request.PublishContext = map[string]string{volumeid.PublishVolume: volumeid.EncodePublished(request.GetVolumeContext())}
	_, err := r.NodeStageVolume(t.Context(), request)
	r.must(err)
	r.must(r.publishAt("t", mounted("", rwo)))
	r.clusters.lacks = "old"
	r.restart()
	r.wants(r.publishAt("t2", mounted("", rwo)), fault.Invalid)
	target := filepath.Join(r.machine.dir, "t")
	_, err = r.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: r.volume, VolumePath: target})
	r.must(err)
	_, err = r.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: r.volume, TargetPath: target})
	r.must(err)
	r.must(r.unstageIt())
	if len(r.machine.attached) != 0 {
		t.Errorf("attached: %v", r.machine.attached)
	}
	notes, err := fence.Notes(r.ceph.Connect()).List(t.Context(), "")
	if r.must(err); len(notes) != 0 {
		t.Errorf("noted: %v", notes)
	}
}

func TestATornStateFileCountsAsNone(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", many)))
	r.must(os.WriteFile(r.state.path(r.volume), []byte(`{"volume":`), 0o600))
	r.must(r.stageAs(mounted("", many))) // adopts device and mount
	if v, err := r.state.load(r.volume); err != nil || v == nil || v.FS != "ext4" {
		t.Errorf("state after adoption: %+v, %v", v, err)
	}
	data, err := os.ReadFile(r.state.path(r.volume))
	r.must(err)
	if strings.Contains(string(data), "userKey") {
		t.Error("the state holds secrets")
	}
}

func TestAReadOnlyTargetThatACrashLeftWritableIsShownAgain(t *testing.T) {
	r := newRig(t)
	target := filepath.Join(r.machine.dir, "a")
	publish := func() {
		t.Helper()
		_, err := r.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: r.volume, StagingTargetPath: r.staging, TargetPath: target, VolumeCapability: mounted("", many), Readonly: true,
		})
		r.must(err)
	}
	r.must(r.stageAs(mounted("", many)))
	publish()
	r.must(r.machine.Bind(r.staging, target, false)) // the crash came before the remount
	r.restart()
	publish()
	if at := r.machine.table[target]; at == nil || !strings.HasPrefix(at.Options, "ro") {
		t.Errorf("the target is mounted as %+v, want it read-only", at)
	}
}

func TestATargetThatIsNotMountedAnyMoreIsAbnormal(t *testing.T) {
	r := newRig(t)
	target := filepath.Join(r.machine.dir, "a")
	r.must(r.stageAs(mounted("", many)))
	r.must(r.publishAt("a", mounted("", many)))
	r.must(os.MkdirAll(target, 0o750))
	stats := func() *csi.NodeGetVolumeStatsResponse {
		t.Helper()
		answer, err := r.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: r.volume, VolumePath: target})
		r.must(err)
		return answer
	}
	if stats().GetVolumeCondition().GetAbnormal() {
		t.Errorf("a mounted target: %v", stats())
	}
	r.must(r.machine.Drop(target))
	if a := stats(); !a.GetVolumeCondition().GetAbnormal() || len(a.GetUsage()) != 0 {
		t.Errorf("a target that is a plain directory: %v", a)
	}
}

func TestStagingAnewKeepsTheTargetsInMind(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", many)))
	r.must(r.publishAt("a", mounted("", many)))
	r.machine.trouble = attach.Lost("the helper died")
	r.machine.fail["blkid"] = errors.New("not now")
	if err := r.stageAs(mounted("", many)); err == nil {
		t.Fatal("staged without a look at the device")
	}
	r.wants(r.unstageIt(), fault.Precondition)
	delete(r.machine.fail, "blkid")
	r.must(r.stageAs(mounted("", many)))
	r.wants(r.unstageIt(), fault.Precondition)
	if v, err := r.state.load(r.volume); err != nil || len(v.Published) != 1 {
		t.Errorf("targets after the cure: %+v, %v", v, err)
	}
}

func TestWhatAnUnfinishedUnstagingBeganIsTakenBackBeforeUse(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", many)))
	r.must(r.stageAs(mounted("", many)))
	r.must(r.publishAt("a", mounted("", many)))
	if r.machine.kept != 2 {
		t.Errorf("the device was kept %d times, want once for staging again and once for publishing", r.machine.kept)
	}
}

func TestQEMUIsNeverToldAnotherSizeThanTheImageHas(t *testing.T) {
	r := newRig(t)
	r.machine.mounter = attach.FuseLoop
	r.must(r.stageAs(mounted("", many)))
	var told []storage.Bytes
	r.machine.grow = func(want storage.Bytes) {
		told = append(told, want)
		lease := ceph.Lease{Name: ceph.ImageLease, Cookie: "another", TTL: time.Second}
		r.wants(r.ceph.Connect().Objects("rbd", "").Lock(t.Context(), ceph.ImageObject(r.image), lease), fault.Busy)
	}
	expand := func(want storage.Bytes) error {
		_, err := r.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
			VolumeId: r.volume, VolumePath: r.staging, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(want)},
		})
		return err
	}
	r.wants(expand(128*storage.MiB), fault.Precondition) // the controller did not expand it
	r.must(r.images.Resize(t.Context(), r.image, 96*storage.MiB))
	r.must(expand(80 * storage.MiB))
	if len(told) != 1 || told[0] != 96*storage.MiB {
		t.Errorf("QEMU was told %v, want 96 MiB once", told)
	}
}
