package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func nodesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "nodes", Short: "The nodes whose agents the coordinators know"}
	addCoordinatorFlags(cmd)
	cmd.AddCommand(nodesList(), nodesDrain(), nodesMaintenance())
	return cmd
}

// nodeView is a node as scripts get it.
type nodeView struct {
	Name        string         `json:"name"`
	Disks       int            `json:"disks"`
	Free        int            `json:"free"`
	Capacity    storage.Bytes  `json:"capacity_bytes"` // of all its disks
	Generation  uint64         `json:"generation"`
	Reported    time.Time      `json:"reported"`
	Maintenance string         `json:"maintenance,omitempty"`
	List        []storage.Disk `json:"list,omitempty"`
}

// silentAfter is how old a report may be: agents tell at least once a minute.
const silentAfter = 3 * time.Minute

// state is the node's in a word.
func (v nodeView) state(now time.Time) string {
	switch {
	case now.Sub(v.Reported) > silentAfter:
		return "silent"
	case v.Maintenance != "":
		return "maintenance: " + v.Maintenance
	default:
		return "reports"
	}
}

func nodesList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List nodes, with their disks and the age of what is known", Args: cobra.NoArgs,
		Long: "A node is silent when its agent has told nothing for " + silentAfter.String() + ". With -o json the disks are in the list.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				list, err := listNodes(ctx, c)
				if err != nil {
					return err
				}
				now := time.Now()
				t := &Table{Header: []string{"NAME", "STATE", "DISKS", "FREE", "CAPACITY", "AGE"}}
				for _, v := range list {
					t.Rows = append(t.Rows, []string{v.Name, v.state(now), strconv.Itoa(v.Disks), strconv.Itoa(v.Free), v.Capacity.Decimal(), now.Sub(v.Reported).Round(time.Second).String()})
				}
				return emit(cmd, list, t, nil)
			})
		},
	}
	addOutputFlag(cmd)
	return cmd
}

// nodesAtOnce is how many nodes are asked for at a time.
const nodesAtOnce = 200

func listNodes(ctx context.Context, c *coordinatorapi.Client) ([]nodeView, error) {
	list := []nodeView{}
	for token := ""; ; {
		page, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ListNodesResponse, error) {
			return api.ListNodes(ctx, &v1.ListNodesRequest{Inventory: true, PageSize: nodesAtOnce, PageToken: token}, o...)
		})
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetNodes() {
			v, err := nodeOf(m)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		if token = page.GetNextPageToken(); token == "" {
			return list, nil
		}
	}
}

// nodeOf reads a node and its inventory.
func nodeOf(m *v1.Node) (nodeView, error) {
	v := nodeView{Name: m.GetName(), Generation: m.GetGeneration(), Reported: m.GetReported().AsTime(), Maintenance: m.GetMaintenance()}
	var i agentapi.Inventory
	if err := json.Unmarshal(m.GetInventory(), &i); err != nil {
		return nodeView{}, fault.New(fault.Invalid, "read the inventory of node %s: %w", v.Name, err)
	}
	for _, d := range i.Disks {
		if d.Because(storage.ReasonKind) {
			continue // no disk at all
		}
		v.List = append(v.List, d)
		v.Disks, v.Capacity = v.Disks+1, v.Capacity+d.Size
		if d.Free() {
			v.Free++
		}
	}
	return v, nil
}

func nodesDrain() *cobra.Command {
	var f rebalanceFlags
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Plan that all data leaves a node's OSDs; nothing moves before the plan is approved", Args: cobra.ExactArgs(1), ValidArgsFunction: namesOf(listNodes, func(v nodeView) string { return v.Name }),
		Long: `Plan that all data leaves the OSDs below a node's host in the CRUSH map, in waves, by upmaps first and weights last. The OSDs go on running, and the host stays in
the map: give it its data back with "holdfast coordinator rebalance --add-host NODE=OSD,...", or let the map forget it with --remove.`,
		Example: "  holdfast nodes drain n4 --dry-run\n  holdfast nodes drain n4",
	}
	remove := cmd.Flags().Bool("remove", false, "the CRUSH map forgets the host and its OSDs at the end; stop and purge them then")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.drainHosts, f.rmHosts = args, nil; *remove {
			f.drainHosts, f.rmHosts = nil, args
		}
		return f.run(cmd)
	}
	f.addPlanFlags(cmd)
	return cmd
}

func nodesMaintenance() *cobra.Command {
	var why string
	var end bool
	cmd := &cobra.Command{
		Use: "maintenance NODE", Short: "Give no work to a node, or with --end give it some again", Args: cobra.ExactArgs(1), ValidArgsFunction: namesOf(listNodes, func(v nodeView) string { return v.Name }),
		Long: "A plan that is at work goes on to its end; no other plan of the node begins. Data stays where it is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if end == (why != "") {
				return fault.New(fault.Invalid, "say --why, such as --why \"new fan\", or --end")
			}
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				_, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.SetMaintenanceResponse, error) {
					return api.SetMaintenance(ctx, &v1.SetMaintenanceRequest{Node: args[0], Why: why}, o...)
				})
				if err != nil {
					return err
				}
				state := "has work again"
				if !end {
					state = "is in maintenance: " + why
				}
				return emit(cmd, map[string]string{"name": args[0], "maintenance": why}, nil, func(out io.Writer) { fmt.Fprintf(out, "node %s %s\n", args[0], state) })
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, for those who wonder")
	cmd.Flags().BoolVar(&end, "end", false, "maintenance is over")
	addOutputFlag(cmd)
	return cmd
}
