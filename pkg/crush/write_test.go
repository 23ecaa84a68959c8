package crush_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// TestBinaryMapsComeOutAsTheyWentIn reads maps that crushtool compiled and writes them again,
// and compiles the same text without it.
func TestBinaryMapsComeOutAsTheyWentIn(t *testing.T) {
	tool := needCrushtool(t)
	same := 0
	for seed := range uint64(60) {
		m := generate(seed, everyAlgorithm)
		file, ok := tool.compile(t, m.text)
		if !ok {
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"binary": want, "text": []byte(m.text)} {
			parsed, err := crush.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parsed.Binary()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				t.Errorf("seed %d, read as %s: %d bytes, crushtool has %d; they differ at %d", seed, name, len(got), len(want), at)
			}
		}
		same++
	}
	t.Logf("%d maps", same)
}

func TestTextIsCrushtoolsOwn(t *testing.T) {
	tool := needCrushtool(t)
	maps := 0
	for seed := range uint64(60) {
		m := generate(seed, everyAlgorithm)
		file, ok := tool.compile(t, m.text)
		if !ok {
			continue
		}
		want, ok := tool.run(t, "-d", file)
		if !ok {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := crush.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.Text()
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("seed %d: %s", seed, firstDifference([]byte(got), want))
		}
		maps++
	}
	t.Logf("%d maps", maps)
}
