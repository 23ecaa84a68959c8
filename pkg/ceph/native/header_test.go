package native

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzPairs(f *testing.F) {
	f.Add(encodePairs(map[string]string{"key": "값", "": ""}))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		pairs, ok := decodePairs(data)
		if !ok {
			return
		}
		again, ok := decodePairs(encodePairs(pairs))
		if !ok || cmp.Diff(pairs, again) != "" {
			t.Fatalf("%v becomes %v", pairs, again)
		}
	})
}
