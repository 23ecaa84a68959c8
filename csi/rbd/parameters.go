package rbd

import (
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/csi/parameter"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// features are the image features that can be asked for, with what each needs
// (`rbd help create`, librbd's create checks).
var features = map[string]string{
	"layering": "", "exclusive-lock": "", "deep-flatten": "",
	"object-map": "exclusive-lock", "fast-diff": "object-map",
}

// Limits of an image's layout (Ceph: doc/man/8/rbd.rst: an object is 4 KiB to 32 MiB).
const (
	minObject     = 4 * storage.KiB
	maxObject     = 32 * storage.MiB
	defaultObject = 4 * storage.MiB
)

// rules are the StorageClass parameters, by ceph-csi's names where the meaning is the same.
func rules() parameter.Rules {
	size := parameter.Rule{Want: "a size in bytes, or with a unit such as 4MiB", OK: func(v string) bool {
		n, err := storage.ParseBytes(v)
		return err == nil && n > 0
	}}
	return parameter.Rules{
		"clusterID":     parameter.Any("a clusterID of the cluster map"),
		"pool":          parameter.Any("the name of an RBD pool"),
		"dataPool":      parameter.Any("the name of a pool for data (it may be erasure coded)"),
		"imageFeatures": {Want: "a comma separated list of layering, exclusive-lock, object-map, fast-diff, deep-flatten, each with those it needs", OK: validFeatures},
		"mounter":       parameter.OneOf("auto", "krbd", "fuse-loop"),
		"mapOptions":    parameter.Any("krbd map options"),
		"unmapOptions":  parameter.Any("krbd unmap options"),
		"mkfsOptions":   parameter.Any("arguments for mkfs"),
		"stripeUnit":    size,
		"objectSize":    size,
		"stripeCount": {Want: "a whole number from 1", OK: func(v string) bool {
			n, err := strconv.ParseUint(v, 10, 32)
			return err == nil && n > 0
		}},
		"encrypted":       parameter.OneOf("true", "false"),
		"encryptionKMSID": parameter.Any("the id of a KMS in the --kms-config file, or \"secret\""),
	}
}

func validFeatures(list string) bool {
	names := split(list)
	for _, name := range names {
		needs, known := features[name]
		if !known || needs != "" && !slices.Contains(names, needs) {
			return false
		}
	}
	return len(names) > 0
}

func split(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Check validates the parameters without a cluster.
func (b *Backend) Check(parameters map[string]string) error {
	if err := refuseJournaling(parameters); err != nil {
		return err
	}
	if err := rules().Check(parameters); err != nil {
		return err
	}
	if parameters["pool"] == "" {
		return fault.New(fault.Invalid, `parameter "pool" is missing: name the RBD pool that the volumes live in`)
	}
	_, err := specOf(parameters)
	return err
}

// refuseJournaling says why the feature cannot be had: librbd 16.2 ends its whole process (a
// segmentation fault in tp_librbd_journ) when an image with a journal is removed whose creation
// was cut off. A journal is of use to rbd-mirror alone.
func refuseJournaling(parameters map[string]string) error {
	if slices.Contains(split(parameters["imageFeatures"]), "journaling") {
		return fault.New(fault.Invalid, `parameter "imageFeatures": journaling is refused: removing an image with a journal whose creation was cut off crashes Ceph's library, `+
			"and with it the service of all volumes; leave it out (only mirroring needs it, which this driver does not do)")
	}
	return nil
}

// specOf returns the image layout that the parameters ask for, its size left out.
func specOf(parameters map[string]string) (ceph.ImageSpec, error) {
	size := func(name string) storage.Bytes {
		n, _ := storage.ParseBytes(parameters[name]) // checked by the rules; absent is 0
		return n
	}
	count, _ := strconv.ParseUint(parameters["stripeCount"], 10, 32)
	spec := ceph.ImageSpec{
		DataPool: parameters["dataPool"], Features: split(parameters["imageFeatures"]),
		ObjectSize: size("objectSize"), StripeUnit: size("stripeUnit"), StripeCount: count,
	}
	object := spec.ObjectSize
	if object == 0 {
		object = defaultObject
	}
	switch {
	case object&(object-1) != 0 || object < minObject || object > maxObject:
		return spec, parameter.Refuse("objectSize", parameters["objectSize"], "a power of two from 4KiB to 32MiB")
	case (spec.StripeUnit == 0) != (spec.StripeCount == 0):
		return spec, fault.New(fault.Invalid, `parameters "stripeUnit" and "stripeCount" go together: one of them is missing`)
	case spec.StripeUnit > 0 && object%spec.StripeUnit != 0:
		return spec, parameter.Refuse("stripeUnit", parameters["stripeUnit"], "a size that divides the object size of "+object.String())
	}
	return spec, nil
}
