package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func poolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pool", Short: "Pools of the cluster: make them as policies want them, and see why they are as they are"}
	addCoordinatorFlags(cmd)
	cmd.AddCommand(
		poolList(), poolShow(), poolExplain(),
		poolPlan("create NAME", "Plan a new pool as policies and flags want it", false, false),
		poolPlan("set NAME", "Plan to make a pool as policies and flags want it: size, min_size, PGs", true, false),
		poolPlan("simulate NAME", "Say what pool policies and flags would make, and why", false, true),
	)
	for _, each := range cmd.Commands() {
		if strings.HasSuffix(each.Use, " NAME") && each.Name() != "create" {
			each.ValidArgsFunction = namesOf(listPools, func(v poolView) string { return v.Name })
		}
	}
	return cmd
}

// poolView is a pool as scripts get it.
type poolView struct {
	Name         string   `json:"name"`
	ID           int64    `json:"id"`
	Type         string   `json:"type"`
	Size         uint32   `json:"size"`
	MinSize      uint32   `json:"min_size"`
	PGs          uint32   `json:"pg_num"`
	Rule         string   `json:"rule"`
	Domain       string   `json:"failure_domain"`
	Class        string   `json:"device_class,omitempty"`
	Stored       uint64   `json:"stored_bytes"`
	Available    uint64   `json:"available_bytes"`
	Applications []string `json:"applications,omitempty"`
}

func poolViewOf(m *v1.Pool) poolView {
	return poolView{
		m.GetName(), m.GetId(), m.GetType(), m.GetSize(), m.GetMinSize(), m.GetPgNum(), m.GetRule(), m.GetFailureDomain(), m.GetDeviceClass(),
		m.GetStoredBytes(), m.GetAvailableBytes(), m.GetApplications(),
	}
}

func listPools(ctx context.Context, c *coordinatorapi.Client) ([]poolView, error) {
	list := []poolView{}
	for token := ""; ; {
		page, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ListPoolsResponse, error) {
			return api.ListPools(ctx, &v1.ListPoolsRequest{PageToken: token}, o...)
		})
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetPools() {
			list = append(list, poolViewOf(m))
		}
		if token = page.GetNextPageToken(); token == "" {
			return list, nil
		}
	}
}

func poolList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List pools", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			list, err := listPools(ctx, c)
			if err != nil {
				return err
			}
			t := &Table{Header: []string{"NAME", "TYPE", "SIZE", "MIN", "PGS", "DOMAIN", "CLASS", "STORED", "AVAILABLE", "RULE", "USE"}, Wide: 2}
			for _, v := range list {
				t.Rows = append(t.Rows, []string{
					v.Name, v.Type, strconv.Itoa(int(v.Size)), strconv.Itoa(int(v.MinSize)), strconv.Itoa(int(v.PGs)), v.Domain, v.Class,
					storage.Bytes(v.Stored).String(), storage.Bytes(v.Available).String(), v.Rule, strings.Join(v.Applications, ","),
				})
			}
			return emit(cmd, list, t, nil)
		})
	}}
	addOutputFlag(cmd)
	return cmd
}

func poolShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a pool", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			list, err := listPools(ctx, c)
			if err != nil {
				return err
			}
			for _, v := range list {
				if v.Name != args[0] {
					continue
				}
				return emit(cmd, v, nil, func(out io.Writer) {
					fmt.Fprintf(out, "pool       %s (%d), %s, size %d, min_size %d, %d PGs\nrule       %s: over %s", v.Name, v.ID, v.Type, v.Size, v.MinSize, v.PGs, v.Rule, v.Domain)
					if v.Class != "" {
						fmt.Fprintf(out, " of class %s", v.Class)
					}
					fmt.Fprintf(out, "\nholds      %s; %s can still be written\nused for   %s\nnext: holdfast pool explain %s\n",
						storage.Bytes(v.Stored), storage.Bytes(v.Available), strings.Join(v.Applications, ", "), v.Name)
				})
			}
			return fault.New(fault.NotFound, "there is no pool %s: `holdfast pool list` lists them", args[0])
		})
	}}
	addOutputFlag(cmd)
	return cmd
}

func poolExplain() *cobra.Command {
	cmd := &cobra.Command{Use: "explain NAME", Short: "Say how well a pool's data is spread, what limits that, and what would lift it", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			m, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ExplainPoolResponse, error) {
				return api.ExplainPool(ctx, &v1.ExplainPoolRequest{Name: args[0]}, o...)
			})
			if err != nil {
				return err
			}
			var e placement.Explanation
			if err := json.Unmarshal(m.GetExplanation(), &e); err != nil {
				return fmt.Errorf("read explanation: %w", err)
			}
			return emit(cmd, e, nil, func(out io.Writer) { printExplanation(out, &e) })
		})
	}}
	addOutputFlag(cmd)
	return cmd
}

// poolFlags are what is wanted of a pool, beyond its policies.
type poolFlags struct {
	profile, bytes, pgBytes, domain, class string
	objects                                int64
	failures, pgsPerOSD                    int
	dry, yes                               bool
}

func poolPlan(use, short string, set, dry bool) *cobra.Command {
	f := poolFlags{dry: dry}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		Long: short + `.

What the flags do not say comes from the policies of the pool, of its device class and of the cluster ("holdfast policy apply"), then from the
defaults. The plan says why the pool is to be so. With --yes it is approved, and followed to its end.`,
		Example: "  holdfast pool " + strings.Replace(use, "NAME", "vms", 1) + " --bytes 2TB --failures 2",
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], set) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.profile, "profile", "", "what the pool is for: rbd, cephfs, search or backup")
	flags.StringVar(&f.bytes, "bytes", "0", "what is to be stored, before replication, such as 30TB")
	flags.Int64Var(&f.objects, "objects", 0, "how many objects there will be")
	flags.IntVar(&f.failures, "failures", 0, "how many failures at once are to be survived")
	flags.StringVar(&f.domain, "failure-domain", "", "what fails as a whole: rack, host or osd")
	flags.StringVar(&f.class, "class", "", "device class")
	flags.StringVar(&f.pgBytes, "pg-bytes", "0", "what a PG's shard should hold at most")
	flags.IntVar(&f.pgsPerOSD, "pgs-per-osd", 0, "how many PGs an OSD may have")
	if !dry {
		flags.BoolVar(&f.dry, "dry-run", false, "show the plan, and propose nothing")
		flags.BoolVar(&f.yes, "yes", false, "approve the plan, and follow it to its end")
	}
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"rbd", "cephfs", "search", "backup"}, cobra.ShellCompDirectiveNoFileComp))
	addOutputFlag(cmd)
	return cmd
}

// request is what is asked for.
func (f *poolFlags) request(name string, set bool) (*v1.PlanPoolRequest, error) {
	p := placement.Policy{Profile: placement.Profile(f.profile), Objects: f.objects, Failures: f.failures, Domain: f.domain, Class: f.class, PGsPerOSD: f.pgsPerOSD}
	for _, each := range []struct {
		flag, text string
		to         *storage.Bytes
	}{{"bytes", f.bytes, &p.Bytes}, {"pg-bytes", f.pgBytes, &p.PGBytes}} {
		n, err := storage.ParseBytes(each.text)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", each.flag, err)
		}
		*each.to = n
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	return &v1.PlanPoolRequest{Name: name, Policy: data, Set: set, DryRun: f.dry}, nil
}

func (f *poolFlags) run(cmd *cobra.Command, name string, set bool) error {
	r, err := f.request(name, set)
	if err != nil {
		return err
	}
	var m *v1.Plan
	err = withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) (err error) {
		m, err = planned(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
			return api.PlanPool(ctx, r, o...)
		})
		return err
	})
	if err != nil {
		return err
	}
	if err := showPlan(cmd, m); err != nil || !f.yes || f.dry {
		return err
	}
	client, err := coordinators(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	if m.GetPhase() == "proposed" {
		if _, err := changePlan(cmd.Context(), client, m.GetId(), agentapi.Approve, m.GetToken()); err != nil {
			return err
		}
	}
	return watchPlan(cmd.Context(), client, m.GetId(), lines(cmd.ErrOrStderr(), ""))
}
