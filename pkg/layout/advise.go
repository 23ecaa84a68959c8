package layout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// TB is the unit in which disks are sold, 10^12 bytes.
const TB storage.Bytes = 1e12

// Sold are the sizes that Advise looks at unless told otherwise: those of hard disks on the market.
func Sold() []storage.Bytes {
	var list []storage.Bytes
	for _, n := range []storage.Bytes{2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24} {
		list = append(list, n*TB)
	}
	return list
}

// Advice is what disks of one size would yield.
type Advice struct {
	Size     storage.Bytes `json:"size_bytes"`
	Change   string        `json:"change"` // in words: add or replace
	Capacity storage.Bytes `json:"capacity_bytes"`
	Gain     storage.Bytes `json:"gain_bytes"`
	// Unused is what no slice could use afterwards, on all disks.
	Unused   storage.Bytes `json:"unused_bytes"`
	Passes   int           `json:"passes"`
	Sync     storage.Bytes `json:"sync_bytes"`
	Forecast int64         `json:"forecast_seconds"`
	// Why is the reason why such disks are of no use; the rest is 0 then.
	Why string `json:"why_not,omitempty"`
}

// Yield is the gain for each byte bought.
func (a Advice) Yield(disks int) float64 { return float64(a.Gain) / (float64(a.Size) * float64(disks)) }

// Advise says for each size what as many disks of it would yield: added while bays are free, the rest
// in the place of the smallest. The sizes come out in ascending order.
func Advise(have Layout, buy int, sizes []storage.Bytes, rate storage.Bytes) ([]Advice, error) {
	if buy < 1 || buy > MaxDisks {
		return nil, fault.New(fault.Range, "buy %d disks: want 1 to %d", buy, MaxDisks)
	}
	sizes = slices.Clone(sizes)
	slices.Sort(sizes)
	var list []Advice
	for _, size := range slices.Compact(sizes) {
		a := Advice{Size: size}
		if err := a.look(have, buy, rate); err != nil {
			a = Advice{Size: size, Why: err.Error()}
		}
		list = append(list, a)
	}
	return list, nil
}

func (a *Advice) look(have Layout, buy int, rate storage.Bytes) error {
	changes, said := have.placed(buy, a.Size)
	after := have
	for _, c := range changes {
		var step Step
		var err error
		if after, step, err = after.Grow(c, rate); err != nil {
			return err
		}
		a.Passes, a.Sync, a.Forecast = a.Passes+step.Passes, a.Sync+step.Sync, a.Forecast+step.Forecast
	}
	a.Change, a.Capacity, a.Unused = said, after.Capacity(), after.Unused()
	a.Gain = a.Capacity - have.Capacity()
	return nil
}

// placed says where new disks go: first into free bays, which also lets others be replaced without
// giving up redundancy; then for the smallest disks.
func (l Layout) placed(buy int, size storage.Bytes) (changes []Change, said string) {
	adding := buy
	if l.Policy.Bays > 0 {
		adding = min(buy, l.Policy.Bays-len(l.Disks))
	}
	var replace, add Change
	bySize := slices.Clone(l.Disks)
	slices.SortStableFunc(bySize, func(x, y Disk) int { return cmp.Compare(x.Size, y.Size) })
	for i := range buy {
		fresh := Disk{ID: fmt.Sprintf("new%d", i+1), Size: size}
		if i < buy-adding {
			if i < len(bySize) {
				replace.Replace = append(replace.Replace, Replacement{Old: bySize[i].ID, New: fresh})
			}
			continue
		}
		add.Add = append(add.Add, fresh)
	}
	if n := len(replace.Replace); n > 0 {
		changes, said = append(changes, replace), fmt.Sprintf("replace %d", n)
	}
	if n := len(add.Add); n > 0 {
		changes = append(changes, add)
		if said != "" {
			said += ", "
		}
		said += fmt.Sprintf("add %d", n)
	}
	return changes, said
}
