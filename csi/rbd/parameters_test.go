package rbd

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestJournalingIsRefusedWithItsReason(t *testing.T) {
	err := (&Backend{}).Check(map[string]string{"pool": "rbd", "imageFeatures": "layering, exclusive-lock,journaling"})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "crashes Ceph's library") {
		t.Errorf("journaling: %v", err)
	}
	if err := (&Backend{}).Check(map[string]string{"pool": "rbd", "imageFeatures": "layering,exclusive-lock"}); err != nil {
		t.Errorf("without journaling: %v", err)
	}
}
