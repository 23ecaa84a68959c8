package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Table is what a list command shows to a person: stable, sorted columns, aligned by
// the width that a terminal gives to each character (two cells for Korean). Names are
// the first column's values, which `-o name` prints alone.
type Table struct {
	Header []string
	Rows   [][]string
	Wide   int // how many of the last columns only `-o wide` shows
}

func addOutputFlag(cmd *cobra.Command) {
	cmd.Flags().StringP("output", "o", "", "output format: json, yaml, wide or name (default: a table)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml", "wide", "name"}, cobra.ShellCompDirectiveNoFileComp))
}

// emit prints value as -o asks; table (may be nil: then human is called) serves people.
func emit(cmd *cobra.Command, value any, table *Table, human func(io.Writer)) error {
	format, _ := cmd.Flags().GetString("output")
	out := cmd.OutOrStdout()
	switch format {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return fmt.Errorf("encode yaml: %w", err)
		}
		_, err = out.Write(text)
		return err
	case "", "wide", "name":
		if table == nil {
			human(out)
			return nil
		}
		return table.print(out, format)
	default:
		return fmt.Errorf("output format %q is none of json, yaml, wide, name", format)
	}
}

func (t *Table) print(out io.Writer, format string) error {
	if format == "name" {
		for _, row := range t.Rows {
			fmt.Fprintln(out, row[0])
		}
		return nil
	}
	columns := len(t.Header)
	if format != "wide" {
		columns -= t.Wide
	}
	widths := t.widths(columns)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		if err := writeRow(out, row, widths); err != nil {
			return err
		}
	}
	return nil
}

// widths are how many cells the first columns take.
func (t *Table) widths(columns int) []int {
	widths := make([]int, columns)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i := range columns {
			widths[i] = max(widths[i], runewidth.StringWidth(row[i]))
		}
	}
	return widths
}

func writeRow(out io.Writer, row []string, widths []int) error {
	var line strings.Builder
	for i, width := range widths {
		line.WriteString(runewidth.FillRight(row[i], width+2))
	}
	_, err := fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	return err
}
