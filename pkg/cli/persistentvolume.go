package cli

import (
	"strings"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// persistentVolume is what is kept of a Kubernetes PersistentVolume (API core/v1) that changes its driver.
type persistentVolume struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Labels      map[string]string `json:"labels,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Spec struct {
		Capacity         map[string]string `json:"capacity"`
		AccessModes      []string          `json:"accessModes"`
		ClaimRef         *claimRef         `json:"claimRef,omitempty"`
		ReclaimPolicy    string            `json:"persistentVolumeReclaimPolicy"`
		StorageClassName string            `json:"storageClassName,omitempty"`
		MountOptions     []string          `json:"mountOptions,omitempty"`
		VolumeMode       string            `json:"volumeMode,omitempty"`
		CSI              *csiSource        `json:"csi,omitempty"`
	} `json:"spec"`
}

// claimRef binds the volume to its claim. The uid is that of the claim which is there: it takes a volume that
// comes back under its name.
type claimRef struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
}

type csiSource struct {
	Driver           string            `json:"driver"`
	VolumeHandle     string            `json:"volumeHandle"`
	ReadOnly         bool              `json:"readOnly,omitempty"`
	FSType           string            `json:"fsType,omitempty"`
	VolumeAttributes map[string]string `json:"volumeAttributes,omitempty"`
	Publish          *secretRef        `json:"controllerPublishSecretRef,omitempty"`
	Stage            *secretRef        `json:"nodeStageSecretRef,omitempty"`
	Expand           *secretRef        `json:"controllerExpandSecretRef,omitempty"`
	Grow             *secretRef        `json:"nodeExpandSecretRef,omitempty"`
}

type secretRef struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// cephCSIDriver tells ceph-csi's drivers, which Rook puts its namespace in front of, and which of ours is like it.
func cephCSIDriver(source *csiSource) (storage.Driver, bool) {
	switch {
	case source == nil:
		return "", false
	case source.Driver == "rbd.csi.ceph.com" || strings.HasSuffix(source.Driver, ".rbd.csi.ceph.com"):
		return storage.RBD, true
	case source.Driver == "cephfs.csi.ceph.com" || strings.HasSuffix(source.Driver, ".cephfs.csi.ceph.com"):
		return storage.CephFS, true
	}
	return "", false
}

// unadoptable says why a volume of ceph-csi's cannot be adopted, "" if nothing is known against it.
func unadoptable(pv *persistentVolume) string {
	source := pv.Spec.CSI
	_, err := volumeid.ParseForeign(source.VolumeHandle)
	switch {
	case source.VolumeAttributes["staticVolume"] == "true" || err != nil:
		return "its handle " + source.VolumeHandle + " is not one that ceph-csi gave out: a volume that was made by hand is not in its journal"
	case source.VolumeAttributes["encrypted"] == "true":
		return "it is encrypted by ceph-csi, whose headers and keys Holdfast does not read: keep ceph-csi for it, or copy its files"
	case source.VolumeAttributes["backingSnapshot"] == "true":
		return "it shows a snapshot without a copy, of which ceph-csi alone keeps count: keep ceph-csi for it, or restore the snapshot"
	}
	return ""
}

// adopted is the volume for one of Holdfast's drivers. Its annotations and topology were the old driver's.
func (pv *persistentVolume) adopted(driver storage.Driver, namespace string) *persistentVolume {
	made := *pv
	made.APIVersion, made.Kind = "v1", "PersistentVolume"
	secret := func(who string) *secretRef {
		return &secretRef{Name: "holdfast-csi-" + kindOf(driver) + "-" + who, Namespace: namespace}
	}
	made.Metadata.Annotations = map[string]string{
		"pv.kubernetes.io/provisioned-by":                            string(driver),
		"volume.kubernetes.io/provisioner-deletion-secret-name":      secret("provisioner").Name,
		"volume.kubernetes.io/provisioner-deletion-secret-namespace": namespace,
	}
	made.Spec.ReclaimPolicy = "Retain"
	source := *pv.Spec.CSI
	source.Driver = string(driver)
	source.Publish, source.Expand, source.Stage = secret("provisioner"), secret("provisioner"), secret("node")
	source.Grow = secret("node")
	made.Spec.CSI = &source
	return &made
}
