package fsm

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// mostLines is how many differences are told one by one.
const mostLines = 10

// Difference tells in lines what of a JSON value has changed: "disks[1].size_bytes: 4 -> 8". Values that are no JSON,
// or none at all, have no difference to tell.
func Difference(before, after []byte) []string {
	var a, b any
	if json.Unmarshal(before, &a) != nil || json.Unmarshal(after, &b) != nil {
		return nil
	}
	lines := differences("", a, b)
	if more := len(lines) - mostLines; more > 0 {
		lines = append(lines[:mostLines:mostLines], fmt.Sprintf("and %d more", more))
	}
	return lines
}

func differences(at string, a, b any) []string {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			return keyDifferences(at, x, y)
		}
	case []any:
		if y, ok := b.([]any); ok {
			var lines []string
			for i := range max(len(x), len(y)) {
				lines = append(lines, differences(fmt.Sprintf("%s[%d]", at, i), item(x, i), item(y, i))...)
			}
			return lines
		}
	}
	was, is := shown(a), shown(b)
	if was == is {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s -> %s", at, was, is)}
}

func keyDifferences(at string, a, b map[string]any) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	var lines []string
	for _, key := range slices.Compact(keys) {
		path := key
		if at != "" {
			path = at + "." + key
		}
		x, inA := a[key]
		y, inB := b[key]
		switch {
		case !inA:
			x = absent{}
		case !inB:
			y = absent{}
		}
		lines = append(lines, differences(path, x, y)...)
	}
	return lines
}

// absent stands for what is not there.
type absent struct{}

func item(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absent{}
}

// shown writes a value in few characters.
func shown(v any) string {
	if _, none := v.(absent); none {
		return "none"
	}
	data, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	if r := []rune(string(data)); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return string(data)
}
