package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

func coordinatorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "coordinator", Short: "The coordinators: who leads, members, backups, certificates"}
	addCoordinatorFlags(cmd)
	cmd.AddCommand(
		coordinatorInitCommand(),
		coordinatorCertificateCommand(),
		coordinatorTokenCommand(),
		coordinatorStatusCommand(),
		coordinatorTransferCommand(),
		coordinatorAddCommand(),
		coordinatorRemoveCommand(),
		coordinatorBackupCommand(),
		coordinatorRestoreCommand(),
		coordinatorRebalanceCommand(),
		coordinatorThrottleCommand(),
	)
	return cmd
}

// addCoordinatorFlags adds those that say how the coordinators are reached.
func addCoordinatorFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.String("certs", "", "directory with your certificate, as \"holdfast coordinator init\" writes it (default: $"+certsVariable+", that of \"holdfast up\" in --data-dir, or "+usualCerts+")")
	flags.StringSlice("endpoints", nil, "HOST:PORT of the coordinators, or srv:NAME whose SRV records they are (default: those in the file endpoints of --certs)")
	flags.Duration("timeout", 30*time.Second, "how long to look for a coordinator that leads")
}

// Where a person's certificate is, unless --certs says so.
const (
	certsVariable = "HOLDFAST_CERTS"
	usualCerts    = "/etc/holdfast/admin"
)

// certsOf finds the directory of a person's certificate. asked: the person has said where it is, rather than that there is one.
func certsOf(cmd *cobra.Command) (dir string, asked, there bool) {
	if dir, _ = cmd.Flags().GetString("certs"); dir != "" {
		return dir, true, true
	}
	if dir = os.Getenv(certsVariable); dir != "" {
		return dir, true, true
	}
	asked = cmd.Flags().Changed("endpoints")
	data, _ := cmd.Flags().GetString("data-dir")
	for _, dir = range []string{filepath.Join(localapi.CoordinatorDir(data), localapi.AdminDir), usualCerts} {
		if _, err := os.Stat(dir); err == nil {
			return dir, asked, true
		}
	}
	return usualCerts, asked, false
}

// coordinators connects to them by the command's flags.
func coordinators(cmd *cobra.Command) (*coordinatorapi.Client, error) {
	dir, _, _ := certsOf(cmd)
	store, err := certs.Open(dir)
	if errors.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "%w; --certs names the directory that `holdfast coordinator init` made", err)
	}
	if err != nil {
		return nil, err
	}
	addresses, _ := cmd.Flags().GetStringSlice("endpoints")
	if len(addresses) == 0 {
		if addresses, err = coordinatorapi.Endpoints(dir); err != nil {
			return nil, fmt.Errorf("where are the coordinators? --endpoints is not given: %w", err)
		}
	}
	return coordinatorapi.New(store, addresses), nil
}

// withCoordinators runs do with a client and a deadline.
func withCoordinators(cmd *cobra.Command, do func(context.Context, *coordinatorapi.Client) error) error {
	client, err := coordinators(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	timeout, _ := cmd.Flags().GetDuration("timeout")
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	return do(ctx, client)
}

// namesOf completes the names of what the coordinators list.
func namesOf[V any](list func(context.Context, *coordinatorapi.Client) ([]V, error), name func(V) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
		_ = withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			all, err := list(ctx, c)
			for _, v := range all {
				if n := name(v); strings.HasPrefix(n, prefix) {
					names = append(names, n)
				}
			}
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// memberView is a coordinator as it tells of itself.
type memberView struct {
	Name        string     `json:"name"`
	Address     string     `json:"address"`
	Role        string     `json:"role"` // leader, follower, down
	Term        uint64     `json:"term,omitempty"`
	Index       uint64     `json:"commit_index,omitempty"`
	LastContact *time.Time `json:"last_contact,omitempty"`
	Expires     *time.Time `json:"certificate_expires,omitempty"`
	Held        uint32     `json:"plans_held"`
	Error       string     `json:"error,omitempty"`
}

// checkView is one thing that is wrong.
type checkView struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// coordinatorsView is all of them.
type coordinatorsView struct {
	Leader  string       `json:"leader,omitempty"`
	Members []memberView `json:"members"`
	// Balancer is the Ceph manager's: on, off, "" where that is not known.
	Balancer string `json:"manager_balancer,omitempty"`
	// Checks are what is wrong, by the codes of `holdfast explain`.
	Checks []checkView `json:"checks"`
	// Spare is how many members may still fail; below zero nothing can be decided.
	Spare int `json:"failures_to_survive"`
}

func coordinatorStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Who leads, who is there, how many may still fail", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := coordinators(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			v, err := lookAtMembers(cmd.Context(), client)
			if err != nil {
				return err
			}
			if v.Balancer != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "the Ceph manager's balancer is %s; the coordinators move data\n", v.Balancer)
			}
			for _, check := range v.Checks {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s %s; see holdfast explain %s\n", check.Code, check.Message, check.Code)
			}
			return emit(cmd, v, v.table(), nil)
		},
	}
	addOutputFlag(cmd)
	return cmd
}

// lookPatience is how long a member may take to tell of itself.
const lookPatience = 3 * time.Second

func statusOf(ctx context.Context, client *coordinatorapi.Client, address string) (*coordinatorv1.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	api, err := client.At(address)
	if err != nil {
		return nil, err
	}
	s, err := api.GetStatus(ctx, &coordinatorv1.GetStatusRequest{})
	return s, fault.FromStatus(err)
}

// lookAtMembers asks each member of the configuration that the first one to answer tells.
func lookAtMembers(ctx context.Context, client *coordinatorapi.Client) (*coordinatorsView, error) {
	var errs []error
	for _, address := range client.Addresses(ctx) {
		first, err := statusOf(ctx, client, address)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
			continue
		}
		v := &coordinatorsView{Leader: first.GetLeader().GetName(), Balancer: first.GetBalancer()}
		up := 0
		for _, m := range first.GetMembers() {
			view := lookAt(ctx, client, m)
			if view.Error == "" {
				up++
			}
			v.Members = append(v.Members, view)
		}
		v.Spare = up - (len(v.Members)/2 + 1)
		v.judge(first)
		return v, nil
	}
	return nil, fault.New(fault.Unavailable, "no coordinator answers: %w", errors.Join(errs...))
}

// judge lists what is wrong: what the first member says, and who does not answer.
func (v *coordinatorsView) judge(first *coordinatorv1.Status) {
	v.Checks = []checkView{}
	for _, c := range first.GetChecks() {
		v.Checks = append(v.Checks, checkView{c.GetCode(), c.GetMessage()})
	}
	for _, m := range v.Members {
		if m.Error != "" {
			v.Checks = append(v.Checks, checkView{string(codes.CoordinatorDown), m.Name + " does not answer"})
		}
	}
}

func lookAt(ctx context.Context, client *coordinatorapi.Client, m *coordinatorv1.Member) memberView {
	v := memberView{Name: m.GetName(), Address: m.GetAddress(), Role: "down"}
	s, err := statusOf(ctx, client, m.GetAddress())
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.Role, v.Term, v.Index, v.Held = "follower", s.GetTerm(), s.GetCommitIndex(), s.GetPlansHeld()
	if s.GetLeader().GetName() == m.GetName() {
		v.Role = "leader"
	}
	expires := s.GetCertificateExpires().AsTime()
	v.Expires = &expires
	if s.GetLastContact() != nil {
		last := s.GetLastContact().AsTime()
		v.LastContact = &last
	}
	return v
}

func (v *coordinatorsView) table() *Table {
	t := &Table{Header: []string{"NAME", "ROLE", "ADDRESS", "TERM", "INDEX", "PLANS", "CERTIFICATE UNTIL", "WHY"}}
	for _, m := range v.Members {
		until := ""
		if m.Expires != nil {
			until = m.Expires.Format(time.DateOnly)
		}
		t.Rows = append(t.Rows, []string{m.Name, m.Role, m.Address, strconv.FormatUint(m.Term, 10), strconv.FormatUint(m.Index, 10), strconv.Itoa(int(m.Held)), until, m.Error})
	}
	return t
}

func coordinatorTransferCommand() *cobra.Command {
	return &cobra.Command{
		Use: "transfer [NAME]", Short: "Hand leadership to a member, such as before maintenance of the leader's machine", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := strings.Join(args, "")
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				_, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Status, error) {
					return api.Transfer(ctx, &coordinatorv1.TransferRequest{To: to}, o...)
				})
				return err
			})
		},
	}
}

func coordinatorAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME HOST:PORT", Short: "Take a running process in as a member, or tell a member's new address", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				_, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Status, error) {
					return api.AddMember(ctx, &coordinatorv1.AddMemberRequest{Member: &coordinatorv1.Member{Name: args[0], Address: args[1]}}, o...)
				})
				return err
			})
		},
	}
}

func coordinatorRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a member out for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				_, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Status, error) {
					return api.RemoveMember(ctx, &coordinatorv1.RemoveMemberRequest{Name: args[0]}, o...)
				})
				return err
			})
		},
	}
}

func coordinatorBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write plans, policies, nodes and history to a file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				data, err := coordinatorapi.Once(ctx, c, backup)
				if err != nil {
					return err
				}
				return writeNew(args[0], data)
			})
		},
	}
}

// writeNew writes a file that is not there yet, whole or not at all.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write backup: %w", err), os.Remove(path))
	}
	return nil
}

func backup(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) ([]byte, error) {
	stream, err := api.Backup(ctx, &coordinatorv1.BackupRequest{}, o...)
	if err != nil {
		return nil, err
	}
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		data = append(data, part.GetData()...)
	}
}

func coordinatorRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Replace all that the coordinators know by a backup", Args: cobra.ExactArgs(1),
		Long: `Replace all that the coordinators know by a backup.

What was proposed, approved and done since the backup is forgotten, while disks and pools stay as they are. Plans that
were at work in the backup wait, paused, until somebody resumes or abandons them. Without --yes nothing is done.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read backup: %w", err)
			}
			if yes, _ := cmd.Flags().GetBool("yes"); !yes {
				return fault.New(fault.Precondition, "this replaces plans, policies and history of all coordinators: repeat it with --yes")
			}
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				_, err := coordinatorapi.Once(ctx, c, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Status, error) {
					return restore(ctx, api, data, o...)
				})
				return err
			})
		},
	}
	cmd.Flags().Bool("yes", false, "do it")
	return cmd
}

// backupPart is how much of a backup goes in one message.
const backupPart = 1 << 20

func restore(ctx context.Context, api coordinatorv1.CoordinatorClient, data []byte, o ...coordinatorapi.CallOption) (*coordinatorv1.Status, error) {
	stream, err := api.Restore(ctx, o...)
	if err != nil {
		return nil, err
	}
	for rest := data; len(rest) > 0; rest = rest[min(backupPart, len(rest)):] {
		if err := stream.Send(&coordinatorv1.Chunk{Data: rest[:min(backupPart, len(rest))]}); err != nil {
			break // CloseAndRecv tells why
		}
	}
	return stream.CloseAndRecv()
}
