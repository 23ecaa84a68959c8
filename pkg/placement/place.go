package placement

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Place gives an OSD that runs its place in the CRUSH map: below a host, which is made where there is none of that name, and with
// that weight. host "" leaves it where it is, which may be nowhere for an OSD without weight. An OSD that has weight elsewhere is refused: its data has to leave it first. What is as
// asked for already is left out.
func (e *Editor) Place(osd crush.ItemID, host string, weight crush.Weight) error {
	if err := e.exists(osd); err != nil {
		return err
	}
	holder := e.crush.Holder(osd)
	if host == "" && holder == nil {
		if weight == 0 {
			return nil
		}
		return fault.New(fault.Invalid, "osd.%d is below no host yet: say which", osd)
	}
	if holder == nil || host != "" && holder.Name != host {
		if err := e.move(osd, holder, host); err != nil {
			return err
		}
	}
	return e.Weigh(osd, weight)
}

// move puts an OSD without weight below a host. One that the map knows no device class of gets the usual one, and the words say so.
func (e *Editor) move(osd crush.ItemID, from *crush.Bucket, host string) error {
	device := crush.Device{ID: osd, Name: deviceName(osd)}
	for _, d := range e.crush.Devices {
		if d.ID == osd {
			device.Class = d.Class
		}
	}
	what := fmt.Sprintf("put %s below host %s", deviceName(osd), host)
	if device.Class == "" && e.class != "" {
		device.Class = e.class
		what += fmt.Sprintf(" as one of class %s, which most are of", e.class)
	}
	if from != nil {
		if w := from.Weights[slices.Index(from.Items, osd)]; w > 0 {
			return fault.New(fault.Precondition, "osd.%d is below %s with weight: drain it before it goes to %s", osd, from.Name, host)
		}
		if err := e.crush.Remove(osd); err != nil {
			return err
		}
	}
	to, err := e.host(host)
	if err != nil {
		return err
	}
	e.crush.Devices = slices.DeleteFunc(e.crush.Devices, func(d crush.Device) bool { return d.ID == osd })
	e.crush.AddDevice(device, to, 0)
	return e.grows("%s", what)
}

// host is the bucket of a host, made where hosts are if there is none.
func (e *Editor) host(name string) (*crush.Bucket, error) {
	kind := slices.IndexFunc(e.crush.Types, func(t crush.Type) bool { return t.Name == "host" })
	if kind < 0 {
		return nil, fault.New(fault.Precondition, "the CRUSH map has no type host")
	}
	if b := e.crush.BucketNamed(name); b != nil {
		if b.Type != e.crush.Types[kind].ID {
			return nil, fault.New(fault.Invalid, "%s is no host in the CRUSH map", name)
		}
		return b, nil
	}
	below, err := e.holderOf(e.crush.Types[kind].ID)
	if err != nil {
		return nil, err
	}
	return e.crush.AddBucket(name, e.crush.Types[kind].ID, below)
}

// Weigh sets what an OSD weighs. Less of it, down to 0 for an OSD that all data leaves, comes last.
func (e *Editor) Weigh(osd crush.ItemID, weight crush.Weight) error {
	if err := e.exists(osd); err != nil {
		return err
	}
	holder := e.crush.Holder(osd)
	if holder == nil {
		return fault.New(fault.Precondition, "osd.%d is below no host", osd)
	}
	was := holder.Weights[slices.Index(holder.Items, osd)]
	if was == weight {
		return nil
	}
	if was > weight {
		if err := e.settle(); err != nil {
			return err
		}
		e.last = append(e.last, weighed(osd, was, weight))
	} else if err := e.grows("%s", weighed(osd, was, weight)); err != nil {
		return err
	}
	return e.crush.SetItemWeight(osd, weight)
}

// Release takes an OSD, or a host with all that is in it, out of the CRUSH map, last. The OSDs run on, without data. What is in no
// bucket is left out.
func (e *Editor) Release(item crush.ItemID) error {
	if e.crush.Holder(item) == nil {
		return nil
	}
	if err := e.settle(); err != nil {
		return err
	}
	name := (&world{Cluster: Cluster{Crush: e.crush}}).name(int32(item))
	e.last = append(e.last, "take "+name+" out of the CRUSH map")
	return e.crush.Remove(item)
}

func (e *Editor) exists(osd crush.ItemID) error {
	if osd < 0 || int(osd) >= len(e.osds.OSDs) || !e.osds.OSDs[osd].Exists {
		return fault.New(fault.NotFound, "there is no osd.%d", osd)
	}
	return nil
}

func deviceName(osd crush.ItemID) string { return fmt.Sprintf("osd.%d", osd) }

func weighed(osd crush.ItemID, was, is crush.Weight) string {
	return fmt.Sprintf("osd.%d weighs %.3f instead of %.3f", osd, float64(is)/float64(crush.One), float64(was)/float64(crush.One))
}
