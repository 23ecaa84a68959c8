// Package smart reads a disk's health by smartctl(8), from its JSON alone. A disk without an
// answer has an unknown health, never a good one. It changes nothing on the disk and does
// not wake one that sleeps.
package smart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// State sums a disk's health up.
type State string

// The states.
const (
	Good    State = "good"
	Worn    State = "warning" // it works, and something counts against it
	Failing State = "failing" // the disk itself says that it fails, or cannot read what was written
	Asleep  State = "asleep"  // it was left alone
	Unknown State = "unknown" // it does not answer, or has no health to tell
)

// Health is what a disk tells of itself. Counters are -1 where it does not tell them.
type Health struct {
	State         State       `json:"state"`
	Concerns      []string    `json:"concerns,omitempty"` // why it is not good, for a person
	Temperature   int64       `json:"temperature_celsius"`
	PowerOnHours  int64       `json:"power_on_hours"`
	Reallocated   int64       `json:"reallocated_sectors"`  // ATA 5, SCSI's grown defects
	Pending       int64       `json:"pending_sectors"`      // ATA 197: they could not be read
	Uncorrectable int64       `json:"uncorrectable_errors"` // ATA 187 and 198, SCSI's counters, NVMe's media errors
	Used          int64       `json:"percentage_used"`      // of an SSD's rated life; may pass 100
	Spare         int64       `json:"available_spare"`      // percent, NVMe
	Attributes    []Attribute `json:"attributes,omitempty"` // ATA's table
	Protocol      string      `json:"protocol,omitempty"`   // "ATA", "NVMe", "SCSI"
}

// Attribute is a line of ATA's table.
type Attribute struct {
	ID        int    `json:"id"`
	Name      string `json:"name"`
	Value     int64  `json:"value"`
	Worst     int64  `json:"worst"`
	Threshold int64  `json:"threshold"`
	Failed    string `json:"failed,omitempty"` // "now", "past"
	Raw       int64  `json:"raw"`
}

// Read asks the disk with this device node. An error is Unsupported when smartctl cannot be run;
// a disk that does not answer is no error and has the state Unknown.
func Read(ctx context.Context, run command.Runner, device string) (Health, error) {
	result, err := run.Run(ctx, command.Cmd{Name: "smartctl", Args: []string{"--json=c", "--nocheck=standby,0", "--all", device}})
	var exit *command.ExitError
	switch {
	case err != nil && ctx.Err() != nil:
		return unknown(), fmt.Errorf("read health of %s: %w", device, err)
	case err != nil && !errors.As(err, &exit): // smartctl's exit status is a set of bits that its JSON has, too
		return unknown(), fault.New(fault.Unsupported, "read health of %s (apt-get install smartmontools, if it is missing): %w", device, err)
	}
	return Parse(result.Stdout)
}

func unknown() Health {
	return Health{State: Unknown, Temperature: -1, PowerOnHours: -1, Reallocated: -1, Pending: -1, Uncorrectable: -1, Used: -1, Spare: -1}
}

// Bits of smartctl's exit status (smartctl(8), EXIT STATUS).
const (
	badCommandLine = 1 << 0
	openFailed     = 1 << 1
	statusFailing  = 1 << 3
	prefailNow     = 1 << 4
	failedInPast   = 1 << 5
)

// Parse reads what `smartctl --json --all` printed.
func Parse(output []byte) (Health, error) {
	var r report
	h := unknown()
	if err := json.Unmarshal(output, &r); err != nil {
		return h, fmt.Errorf("read smartctl's JSON: %w", err)
	}
	h.Protocol = r.Device.Protocol
	if strings.Contains(strings.ToLower(r.Power.String), "standby") || strings.Contains(strings.ToLower(r.Power.String), "sleep") {
		h.State, h.Concerns = Asleep, []string{"it sleeps and was not woken"}
		return h, nil
	}
	if r.Smartctl.Status&(badCommandLine|openFailed) != 0 {
		h.Concerns = r.messages()
		return h, nil
	}
	r.counters(&h)
	r.judge(&h)
	return h, nil
}
