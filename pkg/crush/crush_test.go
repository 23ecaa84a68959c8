package crush_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

const head = "device 0 osd.0\ndevice 1 osd.1\ntype 0 osd\ntype 1 host\ntype 2 root\n"

func TestTextThatIsWrongIsRefusedWithItsLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown tunable":     {"tunable speed 3\n", "line 1: the tunable speed is not known"},
		"an unknown item":        {head + "host a {\nalg straw2\nitem osd.7\n}\n", "line 8: the item osd.7 is not defined"},
		"an unknown type":        {head + "shelf a {\n}\n", `line 6: "shelf" is neither a type`},
		"a bucket without alg":   {head + "host a {\nid -1\n}\n", "line 8: bucket a has no alg"},
		"two buckets of one id":  {head + "host a {\nid -1\nalg straw2\n}\nhost b {\nid -1\nalg straw2\n}\n", "line 13: buckets a and b have the same id"},
		"an end in the middle":   {head + "host a {\nalg straw2\n", "the map ends where"},
		"a weight too large":     {head + "host a {\nalg straw2\nitem osd.0 weight 65536\n}\n", "line 8: \"65536\" is no weight"},
		"a sum that overflows":   {head + "host a {\nalg straw2\nitem osd.0 weight 65535\nitem osd.1 weight 1\n}\n", "line 10: bucket a: its items weigh 65536.0 or more"},
		"an id that eats memory": {head + "host a {\nid -2000000000\nalg straw2\n}\n", "line 7: \"-2000000000\" is no id"},
		"a class with no OSD":    {head + "host a {\nid -1\nalg straw2\nitem osd.0\n}\nrule r {\nid 0\nstep take a class ssd\n}\n", "line 13: nothing below item -1 has the class ssd"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := crush.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestACircleOfBucketsIsRefused(t *testing.T) {
	m := &crush.Map{Buckets: []*crush.Bucket{
		{ID: -1, Name: "a", Type: 1, Algorithm: crush.Straw2, Items: []crush.ItemID{-2}, Weights: []crush.Weight{1}},
		{ID: -2, Name: "b", Type: 1, Algorithm: crush.Straw2, Items: []crush.ItemID{-1}, Weights: []crush.Weight{1}},
	}}
	if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "contains itself") {
		t.Errorf("got %v", err)
	}
}

// FuzzParse: no input makes the readers panic, and what they take can be mapped.
func FuzzParse(f *testing.F) {
	small := head + "host a {\n\tid -1\n\tid -3 class ssd\n\talg tree\n\titem osd.0 weight 1.5\n}\nroot r {\n\talg straw2\n\titem a\n}\n" +
		"rule x {\n\tid 0\n\ttype erasure\n\tstep take r\n\tstep chooseleaf indep 0 type host\n\tstep emit\n}\n" +
		"choose_args 0 {\n{ bucket_id -2\nweight_set [\n[ 1.0 ]\n]\nids [ 7 ]\n}\n}\n"
	f.Add([]byte(small))
	f.Add([]byte(generate(3, everyAlgorithm).text))
	for _, name := range []string{"small.bin", "small.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		m, err := crush.Parse(data)
		if err != nil {
			return
		}
		mapper, err := crush.NewMapper(m, 0)
		if err != nil {
			return
		}
		for rule := range m.Rules {
			if r := m.Rules[rule]; r == nil || tooSlow(m, r) {
				continue
			}
			_, _ = mapper.Do(nil, rule, 1, 3)
		}
	})
}

// tooSlow says whether a map asks for more tries than a fuzzer has time for.
func tooSlow(m *crush.Map, r *crush.Rule) bool {
	for _, step := range r.Steps {
		if step.Op >= crush.OpSetChooseTries && step.Arg1 > 100 {
			return true
		}
	}
	t := m.Tunables
	return max(t.ChooseLocalTries, t.ChooseLocalFallbackTries, t.ChooseTotalTries) > 100
}
