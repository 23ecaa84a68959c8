package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// adviseFlags are the flags of `holdfast placement advise`.
type adviseFlags struct {
	bytes, pgBytes, memory string
	profile                string
	osds, hosts, racks     int
	name                   string
	policy                 placement.Policy
}

func placementAdvise() *cobra.Command {
	var f adviseFlags
	cmd := &cobra.Command{
		Use: "advise --bytes SIZE --osds M", Short: "Say how to make a pool: size, failure domain, PGs, erasure coding, and why", Args: cobra.NoArgs,
		Example: "  holdfast placement advise --bytes 30TB --objects 200000000 --osds 24 --hosts 6 --failures 2\n" +
			"  holdfast placement advise --bytes 30TB --osds 24 --hosts 6 --profile search\n" +
			"  holdfast placement advise --bytes 30TB --osds 24 --hosts 6 --name vms -o commands",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.advise()
			if err != nil {
				return err
			}
			if format, _ := cmd.Flags().GetString("output"); format == "commands" {
				for _, line := range a.Commands(f.name) {
					fmt.Fprintln(cmd.OutOrStdout(), line)
				}
				return nil
			}
			return emit(cmd, a, nil, func(out io.Writer) { printAdvice(out, a) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.bytes, "bytes", "", "what is to be stored, before replication, such as 30TB")
	flags.Int64Var(&f.policy.Objects, "objects", 0, "how many objects (or documents) there will be; 0: not known")
	flags.IntVar(&f.osds, "osds", 0, "how many OSDs there are")
	flags.IntVar(&f.hosts, "hosts", 0, "how many hosts there are (0: not known; each OSD is taken as on a host of its own)")
	flags.IntVar(&f.racks, "racks", 0, "how many racks there are (0: none)")
	flags.IntVar(&f.policy.Failures, "failures", 1, "how many failures at once are to be survived")
	flags.StringVar(&f.profile, "profile", string(placement.RBD), "what the pool is for: rbd, cephfs, search or backup")
	flags.StringVar(&f.policy.Domain, "failure-domain", "host", "what fails as a whole: rack, host or osd; where there are too few of it, the next lower one serves")
	flags.StringVar(&f.policy.Class, "class", "", "device class")
	flags.StringVar(&f.pgBytes, "pg-bytes", "50GB", "what a PG's shard should hold at most")
	flags.IntVar(&f.policy.PGsPerOSD, "pgs-per-osd", 100, "how many PGs an OSD may have")
	flags.StringVar(&f.memory, "osd-memory", "4GiB", "memory of an OSD (osd_memory_target)")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"rbd", "cephfs", "search", "backup"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"bytes", "osds"} {
		_ = cmd.MarkFlagRequired(name)
	}
	flags.StringVar(&f.name, "name", "POOL", "the pool's `NAME` in what -o commands prints")
	addPlanOutput(cmd)
	return cmd
}

func (f *adviseFlags) advise() (*placement.Advice, error) {
	f.policy.Profile = placement.Profile(f.profile)
	for _, size := range []struct {
		flag, text string
		to         *storage.Bytes
	}{{"bytes", f.bytes, &f.policy.Bytes}, {"pg-bytes", f.pgBytes, &f.policy.PGBytes}, {"osd-memory", f.memory, &f.policy.OSDMemory}} {
		n, err := storage.ParseBytes(size.text)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", size.flag, err)
		}
		*size.to = n
	}
	if f.hosts == 0 {
		f.hosts = f.osds
	}
	levels := []placement.Level{{Type: "host", Count: f.hosts}, {Type: "osd", Count: f.osds}}
	if f.racks > 0 {
		levels = append([]placement.Level{{Type: "rack", Count: f.racks}}, levels...)
	}
	return placement.Advise(f.policy, placement.Inventory{Levels: levels})
}

// printAdvice shows it to a person.
func printAdvice(out io.Writer, a *placement.Advice) {
	if a.Type == "erasure" {
		fmt.Fprintf(out, "pool      erasure %d+%d, min_size %d, failure domain %s, pg_num %d\n", a.K, a.M, a.MinSize, a.Domain, a.PGs)
	} else {
		fmt.Fprintf(out, "pool      replicated, size %d, min_size %d, failure domain %s, pg_num %d\n", a.Size, a.MinSize, a.Domain, a.PGs)
	}
	fmt.Fprintf(out, "holds     %s in %s raw; %s a PG, %.1f PGs an OSD\n", a.Policy.Bytes.Decimal(), a.Raw.Decimal(), a.PGHolds.Decimal(), a.PGsOnOSD)
	fmt.Fprintf(out, "rule      %s\n", strings.Join(a.Rule, "; "))
	fmt.Fprintf(out, "bound by  %s\n", a.Binding)
	for _, r := range a.Reasons {
		fmt.Fprintf(out, "- %s\n", r)
	}
	if a.Index == nil {
		return
	}
	fmt.Fprintf(out, "index     %s of %s, %s each\n", plural(a.Index.Shards, "primary shard"), a.Index.Shard.Decimal(), plural(a.Index.Replicas, "replica"))
	for _, r := range a.Index.Reasons {
		fmt.Fprintf(out, "- %s\n", r)
	}
}
