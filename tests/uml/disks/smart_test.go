//go:build umlguest

package disks

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/smart"
)

// TestHealthOfARealSCSIDevice asks the real smartctl about a LUN, which says no more than that all is well.
func TestHealthOfARealSCSIDevice(t *testing.T) {
	l := newLab(t, 4)
	d := l.add(spec{})
	h, err := smart.Read(t.Context(), command.System{}, d.path())
	if err != nil || h.Protocol != "SCSI" || h.State != smart.Good {
		t.Errorf("got %+v, %v", h, err)
	}
	l.withdraw(d)
}
