package native_test

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// outside does what the conformance suite needs beyond the contract by go-ceph and by
// Ceph's own tools.
type outside struct{ cluster realceph.Cluster }

func (o outside) Namespace(t *testing.T, pool string) string {
	name := "conformance-" + strings.ToLower(rand.Text())
	o.cluster.Tool(t, "rbd", "namespace", "create", pool+"/"+name)
	t.Cleanup(func() { o.cluster.Tool(t, "rbd", "namespace", "remove", pool+"/"+name) })
	return name
}

// HalfRename copies the object that leads from the name to the image, as librbd does first.
func (o outside) HalfRename(t *testing.T, pool, image, to string) {
	t.Helper()
	o.cluster.Tool(t, "rados", "-p", pool, "cp", "rbd_id."+image, "rbd_id."+to)
}

// DelayCopies uses the delay that the volumes module has for its own tests.
func (o outside) DelayCopies(t *testing.T) (resume func()) {
	const option = "mgr/volumes/snapshot_clone_delay"
	o.cluster.Tool(t, "ceph", "config", "set", "mgr", option, "3")
	resume = func() { o.cluster.Tool(t, "ceph", "config", "rm", "mgr", option) }
	t.Cleanup(resume)
	return resume
}

func (o outside) connect(t *testing.T) *rados.Conn {
	t.Helper()
	as := o.cluster.Credentials
	conn, err := rados.NewConnWithUser(as.User)
	fatal(t, err)
	fatal(t, conn.SetConfigOption("mon_host", strings.Join(o.cluster.Entry.Monitors, ",")))
	fatal(t, conn.SetConfigOption("key", as.Key.Reveal()))
	fatal(t, conn.Connect())
	return conn
}

func (o outside) SetOmap(t *testing.T, pool, namespace, name string, pairs map[string]string) {
	t.Helper()
	conn := o.connect(t)
	defer conn.Shutdown()
	ioctx, err := conn.OpenIOContext(pool)
	fatal(t, err)
	defer ioctx.Destroy()
	ioctx.SetNamespace(namespace)
	values := map[string][]byte{}
	for key, value := range pairs {
		values[key] = []byte(value)
	}
	fatal(t, ioctx.SetOmap(name, values))
}

// device is an image that a connection of its own has open.
type device struct {
	conn  *rados.Conn
	ioctx *rados.IOContext
	image *rbd.Image
}

func (o outside) Open(t *testing.T, pool, namespace, image string) cephtest.Device {
	t.Helper()
	conn := o.connect(t)
	ioctx, err := conn.OpenIOContext(pool)
	fatal(t, err)
	ioctx.SetNamespace(namespace)
	opened, err := rbd.OpenImage(ioctx, image, rbd.NoSnapshot)
	fatal(t, err)
	return &device{conn, ioctx, opened}
}

func (d *device) Write(t *testing.T, offset, length uint64) {
	t.Helper()
	_, err := d.image.WriteAt(bytes.Repeat([]byte{1}, int(length)), int64(offset))
	fatal(t, err)
	fatal(t, d.image.Flush())
}

func (d *device) Discard(t *testing.T, offset, length uint64) {
	t.Helper()
	_, err := d.image.Discard(offset, length)
	fatal(t, err)
}

func (d *device) Close(t *testing.T) {
	t.Helper()
	fatal(t, d.image.Close())
	d.ioctx.Destroy()
	d.conn.Shutdown()
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
