package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// listSpans prints the spans of a disk as they are found, as emit would: there may be millions.
func listSpans(cmd *cobra.Command, disk content.Disk) error {
	out := cmd.OutOrStdout()
	switch format, _ := cmd.Flags().GetString("output"); format {
	case "json":
		return spansAsJSON(out, disk)
	case "yaml":
		return spansAsYAML(out, disk)
	case "name":
		return content.Each(disk, func(s content.Span) error {
			_, err := fmt.Fprintln(out, s.Offset)
			return err
		})
	case "", "wide":
		return spansAsTable(out, disk)
	}
	return emit(cmd, nil, nil, nil) // says what formats there are
}

func spansAsJSON(out io.Writer, disk content.Disk) error {
	separator := "["
	err := content.Each(disk, func(s content.Span) error {
		text, err := json.MarshalIndent(imageSpan{s.Offset, s.Length, s.Kind.String()}, "  ", "  ")
		if err == nil {
			_, err = fmt.Fprintf(out, "%s\n  %s", separator, text)
		}
		separator = ","
		return err
	})
	if err == nil && separator == "[" {
		_, err = fmt.Fprint(out, "[]\n")
	} else if err == nil {
		_, err = fmt.Fprint(out, "\n]\n")
	}
	return err
}

func spansAsYAML(out io.Writer, disk content.Disk) error {
	none := true
	err := content.Each(disk, func(s content.Span) error {
		none = false
		text, err := yaml.Marshal([]imageSpan{{s.Offset, s.Length, s.Kind.String()}})
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	})
	if err == nil && none {
		_, err = fmt.Fprint(out, "[]\n")
	}
	return err
}

// spansAsTable goes over the disk twice: the columns are as wide as what is in them.
func spansAsTable(out io.Writer, disk content.Disk) error {
	row := func(s content.Span) []string {
		return []string{fmt.Sprint(s.Offset), fmt.Sprint(s.Length), s.Kind.String(), storage.Bytes(s.Length).String()}
	}
	header := []string{"OFFSET", "LENGTH", "KIND", "SIZE"}
	widest := &Table{Header: header, Rows: [][]string{make([]string, len(header))}}
	err := content.Each(disk, func(s content.Span) error {
		for i, text := range row(s) {
			if len(text) > len(widest.Rows[0][i]) {
				widest.Rows[0][i] = text
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	widths := widest.widths(len(header))
	if err := writeRow(out, header, widths); err != nil {
		return err
	}
	return content.Each(disk, func(s content.Span) error { return writeRow(out, row(s), widths) })
}
