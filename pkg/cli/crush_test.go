package cli

import (
	"strings"
	"testing"
)

// runCrushMap runs `holdfast crush map` on a map of pkg/crush.
func runCrushMap(t *testing.T, file string, args string) (string, error) {
	t.Helper()
	return runLine(t, "crush map --crush ../crush/testdata/"+file+" "+args)
}

func TestCrushMapPrintsCrushtoolsLines(t *testing.T) {
	// From crushtool 16.2: -i small.bin --test --show-mappings --rule 0 --num-rep 4 --min-x 1 --max-x 4 --weight 1 0.5
	want := `CRUSH rule 0 x 1 [0,2147483647,2147483647,2147483647]
CRUSH rule 0 x 2 [0,2147483647,2147483647,2147483647]
CRUSH rule 0 x 3 [0,2147483647,2147483647,2147483647]
CRUSH rule 0 x 4 [0,2147483647,2147483647,2147483647]
`
	for _, file := range []string{"small.bin", "small.json"} {
		got, err := runCrushMap(t, file, "--rule 0 --num-rep 4 --min-x 1 --max-x 4 --weight 1=0.5")
		if err != nil || got != want {
			t.Errorf("%s: %v\n%swant\n%s", file, err, got, want)
		}
	}
}

func TestCrushMapSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ want, args string }{
		{"the map has no rule 7", "--rule 7 --num-rep 3"},
		{"want OSD=W", "--rule 0 --num-rep 3 --weight x"},
		{"a number from 0 to 1", "--rule 0 --num-rep 3 --weight 1=2"},
		{"above --max-x", "--rule 0 --num-rep 3 --min-x 3 --max-x 2"},
	} {
		if _, err := runCrushMap(t, "small.bin", c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
