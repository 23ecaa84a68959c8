package stack

import (
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// extend takes what the arrays have gained to the top: volume group, logical volume, file system or OSD.
func (b *builder) extend() {
	first := b.inGroup == nil
	if first {
		b.inGroup = map[string]Array{}
	}
	for _, a := range b.Arrays {
		before, there := b.inGroup[a.UUID]
		if there && before.Capacity() == a.Capacity() {
			continue
		}
		step := plan.Step{Kind: KindPVGrow, What: fmt.Sprintf("let LVM use all of array %s", a.Name), Disks: disksOf(a)}
		args := PVArgs{Group: b.Volume.Group, Array: a, Bytes: a.Usable()}
		if !there {
			args.First = first && len(b.inGroup) == 0
			step.Kind, step.What = KindPVCreate, fmt.Sprintf("add array %s to volume group %s", a.Name, args.Group)
			step.Requires = []string{"the array holds nothing"}
		}
		b.add(step, args)
		b.inGroup[a.UUID] = a
	}
	if first {
		b.volume(KindVolumeCreate, fmt.Sprintf("create volume %s/%s", b.Volume.Group, b.Volume.Name))
		return
	}
	b.volume(KindVolumeGrow, fmt.Sprintf("extend volume %s/%s", b.Volume.Group, b.Volume.Name))
	switch {
	case b.Volume.FileSystem != "":
		b.volume(KindGrowFS, "grow "+b.Volume.FileSystem)
	case b.Volume.OSD != nil:
		b.volume(KindGrowOSD, "let the OSD use all of the volume, and set its CRUSH weight to its size")
		b.notes = append(b.notes, "the OSD is stopped for some seconds in the end; what has no other copy waits for it")
	}
}

// volume adds a step on the volume or on what it carries.
func (b *builder) volume(kind plan.Kind, what string) {
	step := plan.Step{Kind: kind, What: what}
	if kind == KindVolumeCreate || kind == KindVolumeGrow {
		step.After = b.Capacity()
	}
	b.add(step, VolumeArgs{Volume: b.Volume, Bytes: b.Capacity()})
}
