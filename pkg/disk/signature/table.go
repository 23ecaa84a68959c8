package signature

import (
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/partition"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// table reports partition tables: both copies of a GPT, and an MBR.
func (p *prober) table() {
	if p.head == nil || p.tail == nil {
		return // the error is there
	}
	t, err := partition.Read(p, p.size)
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("read the partition table: %w", err))
		return
	}
	if t.Primary.State != partition.Absent || t.Backup.State != partition.Absent {
		p.add(storage.Content{Kind: GPT, Offset: gptOffset(t), Detail: describeGPT(t)})
		return
	}
	switch {
	case t.MBR.Protective:
		p.add(storage.Content{Kind: DOS, Detail: "it protects a GPT, and there is none (any more)"})
	case t.MBR.Used > 0:
		p.add(storage.Content{Kind: DOS, Detail: fmt.Sprintf("%d primary or extended partitions", t.MBR.Used)})
	}
}

func gptOffset(t partition.Table) int64 {
	if t.Primary.State != partition.Absent {
		return t.Primary.Offset
	}
	return t.Backup.Offset
}

func describeGPT(t partition.Table) string {
	primary, backup := t.Primary, t.Backup
	switch {
	case primary.State == partition.Intact && backup.State == partition.Intact:
		return fmt.Sprintf("%d partitions", primary.Used)
	case primary.State == partition.Intact:
		return fmt.Sprintf("%d partitions; the backup is %s", primary.Used, backup.State)
	case backup.State == partition.Intact:
		return fmt.Sprintf("%d partitions in the backup; the primary is %s", backup.Used, primary.State)
	default:
		return fmt.Sprintf("the primary is %s, the backup is %s", primary.State, backup.State)
	}
}

// bootSector reports a sector 0 that ends as boot sectors do and is neither a table nor a
// file system that is known.
func (p *prober) bootSector() {
	sector := p.at(0, 512)
	if len(p.found) == 0 && sector != nil && sector[510] == 0x55 && sector[511] == 0xaa {
		p.add(storage.Content{Kind: DOS, Detail: "a boot sector or an empty partition table"})
	}
}
