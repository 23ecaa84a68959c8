package smart_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/smart"
)

func TestHealthIsSummedUp(t *testing.T) {
	const ata = `{"json_format_version":[1,0],"smartctl":{"version":[7,3],"exit_status":%STATUS%},"device":{"protocol":"ATA"},"smart_status":{"passed":%PASSED%},
"ata_smart_attributes":{"revision":16,"table":[
{"id":5,"name":"Reallocated_Sector_Ct","value":200,"worst":200,"thresh":140,"when_failed":"%WHEN%","raw":{"value":%RAW%,"string":"%RAW%"}},
{"id":187,"name":"Reported_Uncorrect","value":100,"worst":100,"thresh":0,"when_failed":"","raw":{"value":0,"string":"0"}},
{"id":197,"name":"Current_Pending_Sector","value":200,"worst":200,"thresh":0,"when_failed":"","raw":{"value":%PENDING%,"string":"%PENDING%"}}]},
"power_on_time":{"hours":1730},"temperature":{"current":32}}`
	const nvme = `{"smartctl":{"exit_status":%STATUS%},"device":{"protocol":"NVMe"},"smart_status":{"passed":%PASSED%,"nvme":{"value":0}},
"nvme_smart_health_information_log":{"critical_warning":%WARNING%,"temperature":36,"available_spare":%SPARE%,"available_spare_threshold":10,"percentage_used":%USED%,"media_errors":0},
"temperature":{"current":36},"power_on_time":{"hours":2401}}`
	defaults := strings.NewReplacer("%STATUS%", "0", "%PASSED%", "true", "%WHEN%", "", "%RAW%", "0", "%PENDING%", "0", "%WARNING%", "0", "%SPARE%", "100", "%USED%", "1")
	with := func(text string, pairs ...string) string {
		return defaults.Replace(strings.NewReplacer(pairs...).Replace(text))
	}
	for name, c := range map[string]struct {
		output string
		state  smart.State
		says   string
	}{
		"a healthy ATA disk":     {with(ata), smart.Good, ""},
		"it failed":              {with(ata, "%PASSED%", "false", "%STATUS%", "8"), smart.Failing, "says itself"},
		"an attribute failed":    {with(ata, "%WHEN%", "now", "%STATUS%", "16"), smart.Failing, "Reallocated_Sector_Ct is at 200"},
		"pending sectors":        {with(ata, "%PENDING%", "8"), smart.Failing, "8 sectors cannot be read"},
		"reallocated sectors":    {with(ata, "%RAW%", "3"), smart.Worn, "3 sectors were reallocated"},
		"a healthy NVMe disk":    {with(nvme), smart.Good, ""},
		"a worn one":             {with(nvme, "%USED%", "97"), smart.Worn, "97 %"},
		"without spare":          {with(nvme, "%SPARE%", "5", "%WARNING%", "1"), smart.Failing, "its spare is used up"},
		"hot":                    {with(nvme, "%WARNING%", "2"), smart.Worn, "temperature"},
		"asleep":                 {`{"smartctl":{"exit_status":0},"power_mode":{"string":"STANDBY"}}`, smart.Asleep, "sleeps"},
		"it could not be opened": {`{"smartctl":{"exit_status":2,"messages":[{"string":"Smartctl open device: /dev/sdx failed: No such device","severity":"error"}]}}`, smart.Unknown, "No such device"},
		"it has nothing to tell": {`{"smartctl":{"exit_status":4},"device":{"protocol":"SCSI"}}`, smart.Unknown, "does not tell"},
		"SCSI errors":            {`{"smartctl":{"exit_status":0},"smart_status":{"passed":true},"scsi_grown_defect_list":2,"scsi_error_counter_log":{"read":{"total_uncorrected_errors":1},"write":{"total_uncorrected_errors":2}}}`, smart.Worn, "2 sectors were reallocated; 3 errors could not be corrected"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := smart.Parse([]byte(c.output))
			if err != nil || h.State != c.state || !strings.Contains(strings.Join(h.Concerns, "; "), c.says) {
				t.Errorf("got %+v, %v", h, err)
			}
		})
	}
}

// The output is what smartctl 7.3 printed of a LUN of the kernel's SCSI target.
func TestARecordedOutputIsRead(t *testing.T) {
	output, err := os.ReadFile("testdata/scsi-target.json")
	if err != nil {
		t.Fatal(err)
	}
	h, err := smart.Parse(output)
	if err != nil || h.Protocol != "SCSI" || h.State != smart.Good || h.Reallocated != -1 {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestADeviceThatIsNotThereHasUnknownHealth(t *testing.T) {
	if _, err := exec.LookPath("smartctl"); err != nil {
		t.Skip("needs smartctl: apt-get install smartmontools")
	}
	h, err := smart.Read(t.Context(), command.System{}, "/dev/disk/by-id/there-is-none")
	if err != nil || h.State != smart.Unknown || len(h.Concerns) == 0 {
		t.Errorf("got %+v, %v", h, err)
	}
}

type missing struct{}

func (missing) Run(context.Context, command.Cmd) (command.Result, error) {
	return command.Result{}, &exec.Error{Name: "smartctl", Err: exec.ErrNotFound}
}

func TestWithoutSmartctlHealthIsUnknown(t *testing.T) {
	h, err := smart.Read(t.Context(), missing{}, "/dev/sda")
	if err == nil || h.State != smart.Unknown {
		t.Errorf("got %+v, %v", h, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"smart_status":{"passed":true},"nvme_smart_health_information_log":{"critical_warning":255}}`))
	f.Fuzz(func(t *testing.T, output []byte) {
		if h, err := smart.Parse(output); err == nil && h.State == "" {
			t.Errorf("got %+v", h)
		}
	})
}
