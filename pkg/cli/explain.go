package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
)

// explained is a code with its text.
type explained struct {
	Code string `json:"code"`
	codes.Text
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a health code, offline: what it means, what it does, how to mend it",
		Args:  cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range codes.All() {
				names = append(names, string(c))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: runExplain,
	}
	addOutputFlag(cmd)
	return cmd
}

func runExplain(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		table := &Table{Header: []string{"CODE", "MEANING"}}
		list := []explained{}
		for _, c := range codes.All() {
			text, _ := codes.Explain(c)
			list = append(list, explained{string(c), text})
			table.Rows = append(table.Rows, []string{string(c), text.Meaning})
		}
		return emit(cmd, list, table, nil)
	}
	name := strings.ToUpper(strings.TrimSpace(args[0]))
	code := codes.Code(name)
	text, ok := codes.Explain(code)
	if !ok && !strings.HasPrefix(name, "HF-") {
		code = codes.OfCeph(name) // a name of Ceph's
		text, ok = codes.Explain(code)
	}
	if !ok {
		return fault.New(fault.NotFound, "there is no code %s: `holdfast explain` lists them all", name)
	}
	return emit(cmd, explained{string(code), text}, nil, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n\nMeaning   %s\nImpact    %s\nDiagnose  %s\nFix       %s\nVerify    %s\n",
			code, text.Meaning, text.Impact, text.Diagnose, text.Fix, text.Verify)
	})
}
