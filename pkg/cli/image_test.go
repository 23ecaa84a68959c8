package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rawImage makes a raw disk with a little in it.
func rawImage(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join(folder, "disk.img")
	data := make([]byte, 8<<20)
	copy(data[3<<20:], "something")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImagesForScripts(t *testing.T) {
	folder := t.TempDir()
	source := rawImage(t, folder)
	made := filepath.Join(folder, "made.vdi")
	out, err := runLine(t, "image convert "+source+" "+made+" --size 16MiB -o json")
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Format string `json:"format"`
		Size   int64  `json:"size_bytes"`
		Bytes  int64  `json:"file_bytes"`
		DryRun bool   `json:"dry_run"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Format != "vdi" || report.Size != 16<<20 || report.Bytes == 0 || report.DryRun {
		t.Errorf("%+v, %v\n%s", report, err, out)
	}
	if _, err := runLine(t, "image grow "+made+" --size 1GiB"); err != nil {
		t.Fatal(err)
	}
	out, err = runLine(t, "image info "+made+" -o json")
	var info struct {
		Subformat string   `json:"subformat"`
		Size      int64    `json:"size_bytes"`
		Parents   []string `json:"parents"`
	}
	if jsonErr := json.Unmarshal([]byte(out), &info); err != nil || jsonErr != nil || info.Size != 1<<30 || info.Subformat != "dynamic" || info.Parents == nil {
		t.Errorf("%+v, %v, %v", info, err, jsonErr)
	}
	out, err = runLine(t, "image map "+made)
	if err != nil || !strings.Contains(out, "3145728  1048576     data  1 MiB") {
		t.Errorf("%v\n%s", err, out)
	}
	var spans []struct {
		Offset, Length int64
		Kind           string
	}
	out, err = runLine(t, "image map "+made+" -o json")
	if jsonErr := json.Unmarshal([]byte(out), &spans); err != nil || jsonErr != nil || len(spans) != 3 || spans[1].Offset != 3<<20 || spans[1].Kind != "data" {
		t.Errorf("%v, %v\n%s", err, jsonErr, out)
	}
	if out, err = runLine(t, "image map "+made+" -o yaml"); err != nil || strings.Count(out, "- kind:") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err = runLine(t, "image map "+made+" -o no"); err == nil {
		t.Error("an output format that is none")
	}
	if out, err = runLine(t, "image check "+made); err != nil || !strings.Contains(out, "nothing wrong") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestImagesThatAreRefused(t *testing.T) {
	folder := t.TempDir()
	source := rawImage(t, folder)
	there := filepath.Join(folder, "there.vdi")
	if err := os.WriteFile(there, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, say := range map[string]string{
		"image convert " + source + " " + there:                                                "--overwrite",
		"image convert " + source + " " + source:                                               "name of its own",
		"image convert " + source + " " + folder + "/x":                                        "--format",
		"image convert " + source + " " + folder + "/x.vdi --size 1MiB":                        "smaller",
		"image convert " + source + " " + folder + "/x.vdi --size 1MiBi":                       "--size",
		"image convert " + source + " " + folder + "/x.vmdk --subformat vmfs":                  "streamOptimized",
		"image convert " + source + " " + folder + "/x.vdi --grow-fs":                          "--grow-partition",
		"image convert " + source + " " + folder + "/x.vdi --grow-partition last --size 16MiB": "no partition table",
		"image convert " + source + " " + folder + "/x.vdi --from vmdk":                        "signature",
		"image grow " + there + " --size 1GiB":                                                 "sectors",
		"image info " + folder + "/none":                                                       "no such file",
	} {
		if _, err := runLine(t, line); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if data, err := os.ReadFile(there); err != nil || string(data) != "precious" {
		t.Errorf("%q, %v", data, err)
	}
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}
