package cli

import (
	"strings"
	"testing"
)

func TestTableAlignsWideCharacters(t *testing.T) {
	table := &Table{Header: []string{"NAME", "SIZE", "ID"}, Rows: [][]string{{"데이터🗄", "1 GiB", "x"}, {"plain", "10 GiB", "y"}}, Wide: 1}
	for format, want := range map[string]string{
		"":     "NAME     SIZE\n데이터🗄  1 GiB\nplain    10 GiB\n",
		"wide": "NAME     SIZE    ID\n데이터🗄  1 GiB   x\nplain    10 GiB  y\n",
		"name": "데이터🗄\nplain\n",
	} {
		var out strings.Builder
		if err := table.print(&out, format); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("-o %q: got\n%swant\n%s", format, out.String(), want)
		}
	}
}
