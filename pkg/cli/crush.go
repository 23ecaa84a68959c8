package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

func crushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "crush", Short: "Work out where CRUSH places data",
		Long: "CRUSH decides by calculation alone which OSDs hold a placement group. These commands calculate as Ceph does, to the bit, " +
			"without a cluster and without Ceph's tools.",
	}
	cmd.AddCommand(crushMap())
	return cmd
}

// crushMapOptions are the flags of `holdfast crush map`, named as crushtool's are.
type crushMapOptions struct {
	file       string
	rule       int
	numRep     int
	minX, maxX int32
	weights    []string
}

func crushMap() *cobra.Command {
	var o crushMapOptions
	cmd := &cobra.Command{
		Use: "map --crush FILE --rule N --num-rep R --min-x A --max-x B", Short: "Map inputs to OSDs by a rule, as `crushtool --test --show-mappings` does",
		Long: "Each input from --min-x to --max-x is mapped by the rule; the lines are those of `crushtool -i FILE --test --show-mappings`.\n" +
			"2147483647 is a position that stays empty, which happens in rules for erasure coding.\n\n" +
			"FILE is " + crush.Forms + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "crush", "", "the CRUSH map")
	f.IntVar(&o.rule, "rule", 0, "id of the rule")
	f.IntVar(&o.numRep, "num-rep", 0, "how many OSDs to ask for: a pool's size")
	f.Int32Var(&o.minX, "min-x", 0, "first input")
	f.Int32Var(&o.maxX, "max-x", 1023, "last input")
	f.StringArrayVar(&o.weights, "weight", nil, "OSD=W: the OSD takes the part W of its share, 0 (it is out) to 1; may be repeated")
	for _, name := range []string{"crush", "rule", "num-rep"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (o crushMapOptions) run(out io.Writer) error {
	mapper, err := o.mapper()
	if err != nil {
		return err
	}
	if o.minX > o.maxX {
		return fmt.Errorf("--min-x %d is above --max-x %d", o.minX, o.maxX)
	}
	if mapper.AllOut() {
		return nil // crushtool maps nothing then
	}
	w := bufio.NewWriter(out)
	line, osds := []byte{}, []crush.ItemID{}
	for x := int64(o.minX); x <= int64(o.maxX); x++ {
		if osds, err = mapper.Do(osds[:0], o.rule, int32(x), o.numRep); err != nil {
			return err
		}
		line = fmt.Appendf(line[:0], "CRUSH rule %d x %d [", o.rule, x)
		for i, osd := range osds {
			if i > 0 {
				line = append(line, ',')
			}
			line = strconv.AppendInt(line, int64(osd), 10)
		}
		if _, err := w.Write(append(line, "]\n"...)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// mapper reads the map and sets the weights.
func (o crushMapOptions) mapper() (*crush.Mapper, error) {
	data, err := os.ReadFile(o.file)
	if err != nil {
		return nil, fmt.Errorf("--crush: %w", err)
	}
	m, err := crush.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("--crush %s: %w", o.file, err)
	}
	mapper, err := crush.NewMapper(m, 0)
	if err != nil {
		return nil, fmt.Errorf("--crush %s: %w", o.file, err)
	}
	for _, text := range o.weights {
		osd, weight, err := parseReweight(text)
		if err != nil {
			return nil, err
		}
		mapper.SetWeight(osd, weight)
	}
	return mapper, nil
}

func parseReweight(text string) (crush.ItemID, crush.Weight, error) {
	name, value, _ := strings.Cut(text, "=")
	osd, err := strconv.ParseInt(name, 10, 32)
	if err != nil || osd < 0 {
		return 0, 0, fmt.Errorf("--weight %s: want OSD=W, such as 3=0.5", text)
	}
	weight, err := crush.ParseWeight(value)
	if err != nil || weight > crush.One {
		return 0, 0, fmt.Errorf("--weight %s: the weight is a number from 0 to 1", text)
	}
	return crush.ItemID(osd), weight, nil
}
