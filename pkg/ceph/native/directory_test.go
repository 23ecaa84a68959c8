package native_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// What is left when one client removed an image's objects while another was making it.
func TestNameWithoutAnImageIsRemoved(t *testing.T) {
	cluster := realceph.Need(t)
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	conn, err := dialer.Dial(t.Context(), cluster.Entry.Endpoint(), cluster.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	images, name := conn.Images("rbd", ""), "hf-name-alone"
	if err := images.Create(t.Context(), name, ceph.ImageSpec{Size: storage.MiB}); err != nil {
		t.Fatal(err)
	}
	info, err := images.Info(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for object := range strings.FieldsSeq(cluster.Tool(t, "rados", "-p", "rbd", "ls")) {
		if strings.HasSuffix(object, "."+name) || strings.HasSuffix(object, "."+info.ID) {
			cluster.Tool(t, "rados", "-p", "rbd", "rm", object)
		}
	}
	if err := images.Remove(t.Context(), name); err != nil {
		t.Errorf("remove a name without an image: %v", err)
	}
	if list, err := images.List(t.Context()); err != nil || slices.Contains(list, name) {
		t.Errorf("after that there are %v (%v)", list, err)
	}
}
