package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/pools"
	"github.com/holdfast-storage/holdfast/pkg/rebalance"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// policyFile is what people write. A pool's policy leaves to its device class's what it does not say, that to the cluster's, that to the
// defaults.
type policyFile struct {
	Cluster *policySpec            `json:"cluster,omitempty"`
	Classes map[string]*policySpec `json:"classes,omitempty"`
	Pools   map[string]*policySpec `json:"pools,omitempty"`
}

// policySpec is one policy. Sizes may be written as 50GB.
type policySpec struct {
	Profile   placement.Profile `json:"profile,omitempty"`
	Bytes     size              `json:"bytes,omitempty"`
	Objects   int64             `json:"objects,omitempty"`
	Failures  int               `json:"failures,omitempty"`
	Domain    string            `json:"failure_domain,omitempty"`
	Class     string            `json:"device_class,omitempty"`
	PGBytes   size              `json:"pg_bytes,omitempty"`
	PGsPerOSD int               `json:"pgs_per_osd,omitempty"`
	OSDMemory size              `json:"osd_memory,omitempty"`
	// Degraded is the part of all copies, in percent, that may be missing while plans go on.
	Degraded float64 `json:"max_degraded_percent,omitempty"`
	// Approves are kinds of steps that run without a person's approval.
	Approves []string `json:"approves,omitempty"`
}

// size is in bytes, in a file also as text.
type size storage.Bytes

// UnmarshalJSON reads 50000000000, "50GB" or "40GiB".
func (s *size) UnmarshalJSON(data []byte) error {
	n, err := storage.ParseBytes(strings.Trim(string(data), `"`))
	*s = size(n)
	return err
}

// The names of policies begin so.
const (
	clusterPolicy = "cluster"
	classPolicy   = "class "
	poolPolicy    = "pool "
)

// policies are those of a file by their names.
func (f *policyFile) policies() map[string]*policySpec {
	all := map[string]*policySpec{}
	if f.Cluster != nil {
		all[clusterPolicy] = f.Cluster
	}
	for name, p := range f.Classes {
		all[classPolicy+name] = p
	}
	for name, p := range f.Pools {
		all[poolPolicy+name] = p
	}
	return all
}

// readPolicies reads a file and refuses what no policy can be.
func readPolicies(data []byte) (map[string]*policySpec, error) {
	var f policyFile
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return nil, fault.New(fault.Invalid, "read policies: %w", err)
	}
	all := f.policies()
	if len(all) == 0 {
		return nil, fault.New(fault.Invalid, "the file has no policies: want cluster, classes or pools")
	}
	for name, p := range all {
		if err := p.check(name); err != nil {
			return nil, fmt.Errorf("policy %s: %w", name, err)
		}
	}
	return all, nil
}

func (p *policySpec) check(name string) error {
	switch {
	case p == nil:
		return fault.New(fault.Invalid, "it is empty")
	case p.Failures < 0 || p.Failures > 4:
		return fault.New(fault.Invalid, "failures %d: 1 to 4 can be survived", p.Failures)
	case p.Bytes < 0 || p.PGBytes < 0 || p.OSDMemory < 0 || p.Objects < 0 || p.PGsPerOSD < 0:
		return fault.New(fault.Invalid, "amounts are not below zero")
	case p.Degraded < 0 || p.Degraded > 100:
		return fault.New(fault.Invalid, "max_degraded_percent %g: 0 to 100", p.Degraded)
	case name != clusterPolicy && p.Degraded != 0:
		return fault.New(fault.Invalid, "max_degraded_percent is for the cluster")
	case p.Profile != "" && !slices.Contains([]placement.Profile{placement.RBD, placement.CephFS, placement.Search, placement.Backup}, p.Profile):
		return fault.New(fault.Invalid, "the profile %q is none of rbd, cephfs, search, backup", p.Profile)
	}
	known := kinds()
	for _, kind := range p.Approves {
		if !slices.Contains(known, plan.Kind(kind)) {
			return fault.New(fault.Invalid, "approves: no step is of the kind %q: there are %v", kind, known)
		}
	}
	return nil
}

// kinds are those of all steps that plans have.
func kinds() []plan.Kind {
	all := executor.Registry{}
	for _, each := range []executor.Registry{rebalance.Steps(nil, nil), pools.Steps(nil), osd.Registry(nil), osd.VolumeRegistry(nil), (&live.Machine{}).Registry()} {
		maps.Copy(all, each)
	}
	return slices.Sorted(maps.Keys(all))
}

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Policies: what is wanted of the cluster, of device classes and of pools"}
	addCoordinatorFlags(cmd)
	cmd.AddCommand(policyApply(), policyShow())
	return cmd
}

func policyApply() *cobra.Command {
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Write the policies of a YAML file; others stay", Args: cobra.ExactArgs(1),
		Long: `Write the policies of a YAML file ("-": standard input); others stay as they are.

  cluster:
    failures: 1
    failure_domain: host
    max_degraded_percent: 1            # plans go on while no more copies than this are missing
    approves: [upmap-wave, crush-change]   # kinds of steps that need no person
  classes:
    ssd: {pgs_per_osd: 150}
  pools:
    vms: {bytes: 2TB, device_class: ssd, failures: 2}

What a pool's policy does not say its device class's does, then the cluster's, then the defaults. A policy counts for pools that are made
or set from then on ("holdfast pool set" carries it out).`,
		RunE: runPolicyApply,
	}
	cmd.Flags().Bool("dry-run", false, "say what would change, and write nothing")
	addOutputFlag(cmd)
	return cmd
}

// policyChange is what applying does to one policy.
type policyChange struct {
	Name string `json:"name"`
	Does string `json:"does"` // create, change or keep
}

func runPolicyApply(cmd *cobra.Command, args []string) error {
	data, err := readFileOrInput(cmd, args[0])
	if err != nil {
		return err
	}
	wanted, err := readPolicies(data)
	if err != nil {
		return err
	}
	dry, _ := cmd.Flags().GetBool("dry-run")
	return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		now, err := listPolicies(ctx, c)
		if err != nil {
			return err
		}
		changes := []policyChange{}
		table := &Table{Header: []string{"POLICY", "DOES"}}
		for _, name := range slices.Sorted(maps.Keys(wanted)) {
			m, err := policyMessage(name, wanted[name])
			if err != nil {
				return err
			}
			change := policyChange{name, "create"}
			if was, ok := now[name]; ok {
				if change.Does = "change"; bytes.Equal(was.GetSpec(), m.GetSpec()) && slices.Equal(was.GetApproves(), m.GetApproves()) {
					change.Does = "keep"
				}
			}
			if change.Does != "keep" && !dry {
				if _, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Policy, error) {
					return api.SetPolicy(ctx, &v1.SetPolicyRequest{Policy: m}, o...)
				}); err != nil {
					return err
				}
			}
			changes, table.Rows = append(changes, change), append(table.Rows, []string{change.Name, change.Does})
		}
		return emit(cmd, changes, table, nil)
	})
}

// policyMessage is a policy as the API has it: what approves goes beside the rest.
func policyMessage(name string, p *policySpec) (*v1.Policy, error) {
	spec := *p
	spec.Approves = nil
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode policy %s: %w", name, err)
	}
	return &v1.Policy{Name: name, Spec: data, Approves: p.Approves}, nil
}

func listPolicies(ctx context.Context, c *coordinatorapi.Client) (map[string]*v1.Policy, error) {
	all := map[string]*v1.Policy{}
	for token := ""; ; {
		page, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ListPoliciesResponse, error) {
			return api.ListPolicies(ctx, &v1.ListPoliciesRequest{PageToken: token}, o...)
		})
		if err != nil {
			return nil, err
		}
		for _, p := range page.GetPolicies() {
			all[p.GetName()] = p
		}
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

func policyShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show the policies in the form that apply takes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				all, err := listPolicies(ctx, c)
				if err != nil {
					return err
				}
				f := policyFileOf(cmd.ErrOrStderr(), all)
				text, err := yaml.Marshal(f)
				if err != nil {
					return fmt.Errorf("encode policies: %w", err)
				}
				return emit(cmd, f, nil, func(out io.Writer) { fmt.Fprint(out, string(text)) })
			})
		},
	}
	addOutputFlag(cmd)
	return cmd
}

// policyFileOf is the file that policies come from. Those of another form are told of, and left out.
func policyFileOf(warn io.Writer, all map[string]*v1.Policy) *policyFile {
	f := &policyFile{Classes: map[string]*policySpec{}, Pools: map[string]*policySpec{}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p := &policySpec{}
		if spec := all[name].GetSpec(); len(spec) > 0 && json.Unmarshal(spec, p) != nil {
			fmt.Fprintf(warn, "policy %s has another form: %s\n", name, spec)
			continue
		}
		p.Approves = all[name].GetApproves()
		class, isClass := strings.CutPrefix(name, classPolicy)
		pool, isPool := strings.CutPrefix(name, poolPolicy)
		switch {
		case name == clusterPolicy:
			f.Cluster = p
		case isClass:
			f.Classes[class] = p
		case isPool:
			f.Pools[pool] = p
		default:
			fmt.Fprintf(warn, "policy %s is neither the cluster's, nor a class's, nor a pool's\n", name)
		}
	}
	return f
}

// readFileOrInput reads a file, or standard input for "-".
func readFileOrInput(cmd *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		data, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return data, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	return data, nil
}
