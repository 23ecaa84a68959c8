package smart

import (
	"fmt"
	"slices"
)

// report is the part of smartctl's JSON that is read (format version 1.0).
type report struct {
	Smartctl struct {
		Status   int `json:"exit_status"`
		Messages []struct {
			Text     string `json:"string"`
			Severity string `json:"severity"`
		} `json:"messages"`
	} `json:"smartctl"`
	Device struct {
		Protocol string `json:"protocol"`
	} `json:"device"`
	Power struct {
		String string `json:"string"`
	} `json:"power_mode"`
	Status      *struct{ Passed bool }   `json:"smart_status"`
	Temperature *struct{ Current int64 } `json:"temperature"`
	PowerOn     *struct{ Hours int64 }   `json:"power_on_time"`
	ATA         struct {
		Table []struct {
			ID        int    `json:"id"`
			Name      string `json:"name"`
			Value     int64  `json:"value"`
			Worst     int64  `json:"worst"`
			Threshold int64  `json:"thresh"`
			Failed    string `json:"when_failed"`
			Raw       struct {
				Value int64 `json:"value"`
			} `json:"raw"`
		} `json:"table"`
	} `json:"ata_smart_attributes"`
	NVMe *struct {
		Warning        int64 `json:"critical_warning"`
		Spare          int64 `json:"available_spare"`
		SpareThreshold int64 `json:"available_spare_threshold"`
		Used           int64 `json:"percentage_used"`
		MediaErrors    int64 `json:"media_errors"`
	} `json:"nvme_smart_health_information_log"`
	Grown  *int64 `json:"scsi_grown_defect_list"`
	Errors map[string]struct {
		Uncorrected int64 `json:"total_uncorrected_errors"`
	} `json:"scsi_error_counter_log"`
	Endurance *int64 `json:"scsi_percentage_used_endurance_indicator"`
}

func (r report) messages() []string {
	var texts []string
	for _, m := range r.Smartctl.Messages {
		texts = append(texts, m.Text)
	}
	return texts
}

// counters takes what the disk's protocol has.
func (r report) counters(h *Health) {
	if r.Temperature != nil {
		h.Temperature = r.Temperature.Current
	}
	if r.PowerOn != nil {
		h.PowerOnHours = r.PowerOn.Hours
	}
	r.ata(h)
	if n := r.NVMe; n != nil {
		h.Used, h.Spare, h.Uncorrectable = n.Used, n.Spare, n.MediaErrors
	}
	if r.Grown != nil {
		h.Reallocated = *r.Grown
	}
	if r.Endurance != nil {
		h.Used = *r.Endurance
	}
	for _, kind := range r.Errors {
		h.Uncorrectable = max(h.Uncorrectable, 0) + kind.Uncorrected
	}
}

// ata reads the table. The numbers are those that vendors agree on: 5 reallocated, 187
// reported uncorrectable, 197 pending, 198 offline uncorrectable.
func (r report) ata(h *Health) {
	for _, line := range r.ATA.Table {
		h.Attributes = append(h.Attributes, Attribute{line.ID, line.Name, line.Value, line.Worst, line.Threshold, line.Failed, line.Raw.Value})
		switch line.ID {
		case 5:
			h.Reallocated = line.Raw.Value
		case 197:
			h.Pending = line.Raw.Value
		case 187, 198:
			h.Uncorrectable = max(h.Uncorrectable, line.Raw.Value)
		}
	}
}

// nvmeWarnings are the bits of the critical warning (NVMe 1.4, figure 196).
var nvmeWarnings = []string{"its spare is used up", "its temperature is out of range", "its reliability is degraded", "it is read-only", "its power backup has failed", "its persistent memory is unreliable"}

// judge sums up. Failing is what the disk says of itself, and sectors that cannot be read
// now; a single reallocated sector is a warning.
func (r report) judge(h *Health) {
	failing, worn := r.failures(*h), r.warnings(*h)
	h.Concerns = slices.Concat(failing, worn)
	switch {
	case len(failing) > 0:
		h.State = Failing
	case len(worn) > 0:
		h.State = Worn
	case r.Status != nil:
		h.State = Good
	default:
		h.Concerns = append([]string{"it does not tell its health"}, r.messages()...)
	}
}

func (r report) failures(h Health) []string {
	var all []string
	if r.Status != nil && !r.Status.Passed || r.Smartctl.Status&statusFailing != 0 {
		all = append(all, "it says itself that it is failing")
	}
	for _, a := range h.Attributes {
		if a.Failed == "now" {
			all = append(all, fmt.Sprintf("%s is at %d, below its threshold %d", a.Name, a.Value, a.Threshold))
		}
	}
	if h.Pending > 0 {
		all = append(all, fmt.Sprintf("%d sectors cannot be read", h.Pending))
	}
	if r.NVMe != nil {
		for bit, text := range nvmeWarnings {
			if r.NVMe.Warning&(1<<bit) != 0 && bit != 1 {
				all = append(all, text)
			}
		}
	}
	return all
}

func (r report) warnings(h Health) []string {
	var all []string
	add := func(is bool, format string, args ...any) {
		if is {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(h.Reallocated > 0, "%d sectors were reallocated", h.Reallocated)
	add(h.Uncorrectable > 0, "%d errors could not be corrected", h.Uncorrectable)
	add(h.Used >= 90, "%d %% of its rated life are used", h.Used)
	add(r.NVMe != nil && r.NVMe.Warning&2 != 0, "%s", nvmeWarnings[1])
	add(r.NVMe != nil && r.NVMe.Spare <= r.NVMe.SpareThreshold && r.NVMe.SpareThreshold > 0, "%d %% spare are left", h.Spare)
	add(r.Smartctl.Status&prefailNow != 0 && len(all) == 0, "an attribute is at its threshold")
	add(r.Smartctl.Status&failedInPast != 0, "an attribute was below its threshold in the past")
	return all
}
