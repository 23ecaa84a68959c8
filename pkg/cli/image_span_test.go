package cli

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

func TestTheSpansOfAnImageAreThoseOfItsExtents(t *testing.T) {
	asked := 0
	d := &rbdDisk{size: 100, extents: func(off, _ int64) ([]volumeapi.ImageExtent, error) {
		asked++
		return []volumeapi.ImageExtent{{Offset: 10, Length: 10}, {Offset: 20, Length: 5}, {Offset: 50, Length: 1}}, nil
	}}
	for off, want := range map[int64]content.Span{
		0:  {Offset: 0, Length: 10, Kind: content.Hole},
		9:  {Offset: 9, Length: 1, Kind: content.Hole},
		10: {Offset: 10, Length: 10, Kind: content.Data},
		19: {Offset: 19, Length: 1, Kind: content.Data},
		20: {Offset: 20, Length: 5, Kind: content.Data},
		25: {Offset: 25, Length: 25, Kind: content.Hole},
		50: {Offset: 50, Length: 1, Kind: content.Data},
		51: {Offset: 51, Length: 49, Kind: content.Hole},
	} {
		d.from, d.to = 0, 0
		if got, err := d.Span(0); err != nil || got.Length != 10 {
			t.Fatal(got, err)
		}
		if got, err := d.Span(off); err != nil || got != want {
			t.Errorf("at %d: %+v, %v; want %+v", off, got, err, want)
		}
	}
	if asked != 8 {
		t.Errorf("asked %d times", asked)
	}
}
