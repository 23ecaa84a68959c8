package standalone

import (
	"strings"
	"testing"
)

// rights are the capabilities of the two CSI users.
func (c *cluster) rights() string {
	c.t.Helper()
	var all strings.Builder
	for _, user := range []string{"client.hf-csi-provisioner", "client.hf-csi-node"} {
		out, err := c.as("admin", "ceph", "auth", "get", user)
		if err != nil {
			c.t.Fatalf("%v\n%s", err, out)
		}
		all.WriteString(out)
	}
	return all.String()
}

// testCaps tries what the two CSI users may do, with Ceph's own programs.
func testCaps(t *testing.T, c *cluster) {
	const provisioner, node = "hf-csi-provisioner", "hf-csi-node"
	tries := []struct {
		what    string
		user    string
		allowed bool
		line    string
	}{
		{"the provisioner makes an image", provisioner, true, "rbd create rbd/caps --size 8M"},
		{"the provisioner writes records", provisioner, true, "rados -p .holdfast create caps"},
		{"the provisioner makes a subvolume", provisioner, true, "ceph fs subvolume create cephfs caps --group_name csi --size 1048576"},
		{"the provisioner grows a subvolume", provisioner, true, "ceph fs subvolume resize cephfs caps 2097152 --group_name csi"},
		{"the provisioner snapshots a subvolume", provisioner, true, "ceph fs subvolume snapshot create cephfs caps s --group_name csi"},
		{"the provisioner cannot let others into a subvolume", provisioner, false, "ceph fs subvolume authorize cephfs caps other --group_name csi"},
		{"the provisioner reads the capacity", provisioner, true, "ceph df"},
		{"the provisioner lists file systems", provisioner, true, "ceph fs dump"},
		{"the provisioner cannot read files' data", provisioner, false, "rados -p cephfs.data ls"},
		{"the provisioner cannot delete the file system", provisioner, false, "ceph fs volume rm cephfs --yes-i-really-mean-it"},
		{"the provisioner cannot make pools", provisioner, false, "ceph osd pool create other 8"},
		{"the provisioner cannot see users", provisioner, false, "ceph auth ls"},
		{"the provisioner fences one client", provisioner, true, "ceph osd blocklist add 10.255.0.1:0/7 60"},
		{"the provisioner lets it back", provisioner, true, "ceph osd blocklist rm 10.255.0.1:0/7"},
		{"the provisioner cannot fence a whole machine", provisioner, false, "ceph osd blocklist add 10.255.0.1 60"},
		{"the provisioner cannot let everybody back", provisioner, false, "ceph osd blocklist clear"},
		{"the node cannot let clients back", node, false, "ceph osd blocklist rm 10.255.0.1:0/7"},
		{"the node notes its clients", node, true, "rados -p .holdfast --namespace nodes create caps"},
		{"the node forgets them", node, true, "rados -p .holdfast --namespace nodes rm caps"},
		{"the node cannot see fences", node, false, "rados -p .holdfast --namespace fences ls"},
		{"the node opens an image", node, true, "rbd info rbd/caps"},
		{"the node writes an image's metadata", node, true, "rbd image-meta set rbd/caps k v"},
		{"the node cannot read records", node, false, "rados -p .holdfast ls"},
		{"the node cannot write records", node, false, "rados -p .holdfast create other"},
		{"the node cannot make subvolumes", node, false, "ceph fs subvolume create cephfs other --group_name csi"},
		{"the node cannot read the file system's metadata pool", node, false, "rados -p cephfs.meta ls"},
		{"the node cannot delete pools", node, false, "ceph osd pool rm rbd rbd --yes-i-really-really-mean-it"},
		{"the node cannot see users", node, false, "ceph auth ls"},
		{"the node cannot remove a snapshot", node, false, "ceph fs subvolume snapshot rm cephfs caps s --group_name csi"},
		{"the provisioner removes a snapshot", provisioner, true, "ceph fs subvolume snapshot rm cephfs caps s --group_name csi"},
		{"the provisioner removes the subvolume", provisioner, true, "ceph fs subvolume rm cephfs caps --group_name csi"},
		{"the provisioner removes the image", provisioner, true, "rbd rm --no-progress rbd/caps"},
		{"the provisioner removes records", provisioner, true, "rados -p .holdfast rm caps"},
	}
	for _, try := range tries {
		words := strings.Fields(try.line)
		out, err := c.as(try.user, words[0], words[1:]...)
		switch {
		case try.allowed && err != nil:
			t.Errorf("%s: %v\n%s", try.what, err, out)
		case !try.allowed && err == nil:
			t.Errorf("%s: it could\n%s", try.what, out)
		case !try.allowed && !strings.Contains(out, "EACCES") && !strings.Contains(out, "not permitted") && !strings.Contains(out, "ermission denied"):
			t.Errorf("%s: it failed for another reason\n%s", try.what, out)
		}
	}
}
