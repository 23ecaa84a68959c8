package nodetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// crashed is what the machine must know of a volume after its crash.
type crashed struct {
	ID, Image, Staging string
	Context            map[string]string
}

// CrashPrepare stages and publishes a volume and writes to it. The caller crashes the
// machine then; env.Dir must survive that.
func CrashPrepare(t *testing.T, env Env) {
	b := openBench(t, env)
	v := b.imageVolume(384 * storage.MiB)
	b.must(v.stage(t.Context(), b.rbd, mountCap("xfs", multi)))
	target := b.path("pod")
	b.must(v.publish(t.Context(), b.rbd, mountCap("xfs", multi), target, false))
	f, err := os.Create(filepath.Join(target, "지속 💾"))
	b.must(err)
	_, err = f.WriteString("살아남다")
	b.must(err)
	b.must(f.Sync())
	b.must(f.Close())
	data, err := json.Marshal(crashed{v.id, v.image, v.staging, v.context})
	b.must(err)
	b.must(os.WriteFile(filepath.Join(env.Dir, "crashed.json"), data, 0o600))
}

// CrashRecover stages the volume of CrashPrepare again, on the machine after its crash.
func CrashRecover(t *testing.T, env Env) {
	b := openBench(t, env)
	data, err := os.ReadFile(filepath.Join(env.Dir, "crashed.json"))
	b.must(err)
	var c crashed
	b.must(json.Unmarshal(data, &c))
	v := &volume{b: b, id: c.ID, image: c.Image, staging: c.Staging, context: c.Context}
	target := b.path("pod")
	b.must(v.unpublish(t.Context(), b.rbd, target)) // what kubelet does with a pod that is gone
	b.must(v.stage(t.Context(), b.rbd, mountCap("xfs", multi)))
	b.must(v.publish(t.Context(), b.rbd, mountCap("xfs", multi), target, false))
	if data, err := os.ReadFile(filepath.Join(target, "지속 💾")); err != nil || string(data) != "살아남다" {
		t.Errorf("after the crash: %q, %v", data, err)
	}
	b.must(v.unpublish(t.Context(), b.rbd, target))
	b.must(v.unstage(t.Context(), b.rbd))
	b.unwatched(v)
	b.must(b.images().Remove(t.Context(), v.image))
}
