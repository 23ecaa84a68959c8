package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
)

// The places below the directory that init makes.
const (
	caDir    = "ca"
	adminDir = "admin"
)

func coordinatorInitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Make the CA and the first certificates of a new cluster of coordinators", Args: cobra.ExactArgs(1),
		Example: "holdfast coordinator init /root/holdfast --member c1=10.0.0.1:7480 --member c2=10.0.0.2:7480 --member c3=10.0.0.3:7480",
		RunE:    runCoordinatorInit,
	}
	cmd.Flags().String("cluster", "holdfast", "the cluster's name in the CA")
	cmd.Flags().StringSlice("member", nil, "NAME=HOST:PORT of a coordinator; 1, 3 or 5 of them")
	_ = cmd.MarkFlagRequired("member")
	return cmd
}

func runCoordinatorInit(cmd *cobra.Command, args []string) error {
	dir := args[0]
	cluster, _ := cmd.Flags().GetString("cluster")
	list, _ := cmd.Flags().GetStringSlice("member")
	members, err := readMembers(list)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, caDir)); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Exists, "%s has a CA already: another one would lock all processes out that know it", dir)
	}
	ca, err := certs.NewCA(cluster, time.Now())
	if err != nil {
		return err
	}
	if err := certs.WriteCA(filepath.Join(dir, caDir), ca); err != nil {
		return err
	}
	var addresses, pairs []string
	for _, m := range members {
		if err := issue(ca, certs.Identity{Role: certs.Coordinator, Name: m[0]}, filepath.Join(dir, m[0])); err != nil {
			return err
		}
		addresses, pairs = append(addresses, m[1]), append(pairs, m[0]+"="+m[1])
	}
	if err := issue(ca, certs.Identity{Role: certs.Admin, Name: "admin"}, filepath.Join(dir, adminDir)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, adminDir, coordinatorapi.EndpointsFile), []byte(strings.Join(addresses, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	out := cmd.ErrOrStderr()
	fmt.Fprintf(out, "The CA's key is in %s: keep it off the coordinators' machines. Copy each member's directory to its machine and start it there:\n", filepath.Join(dir, caDir))
	for _, m := range members {
		fmt.Fprintf(out, "  holdfastd coordinator --certs %s --address %s --members %s\n", filepath.Join(dir, m[0]), m[1], strings.Join(pairs, ","))
	}
	fmt.Fprintf(out, "next: holdfast coordinator status --certs %s\n", filepath.Join(dir, adminDir))
	return nil
}

// readMembers reads NAME=HOST:PORT, an odd number of times.
func readMembers(list []string) ([][2]string, error) {
	var members [][2]string
	for _, text := range list {
		name, address, ok := strings.Cut(text, "=")
		if !ok || name == "" || !strings.Contains(address, ":") {
			return nil, fault.New(fault.Invalid, "--member %q is not NAME=HOST:PORT", text)
		}
		if name == caDir || name == adminDir || slices.ContainsFunc(members, func(m [2]string) bool { return m[0] == name || m[1] == address }) {
			return nil, fault.New(fault.Invalid, "--member %s: the name or the address is taken", text)
		}
		members = append(members, [2]string{name, address})
	}
	if n := len(members); n != 1 && n != 3 && n != 5 {
		return nil, fault.New(fault.Invalid, "%d members: 1, 3 or 5 are of use (an even number survives no more failures than one less)", n)
	}
	return members, nil
}

// issue writes a certificate for an identity into a directory.
func issue(ca certs.Pair, id certs.Identity, dir string) error {
	pair, err := ca.Issue(id, time.Now())
	if err != nil {
		return err
	}
	trusted, err := certs.Trust(dir, ca.Cert)
	if err != nil {
		return err
	}
	return certs.Write(dir, trusted, pair)
}

func coordinatorCertificateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "certificate DIR", Short: "Make a process's certificate, or renew it: a running one takes it without a restart", Args: cobra.ExactArgs(1),
		Example: "holdfast coordinator certificate /etc/holdfast/certs --ca /root/holdfast/ca --role agent --name n1",
		RunE: func(cmd *cobra.Command, args []string) error {
			from, _ := cmd.Flags().GetString("ca")
			role, _ := cmd.Flags().GetString("role")
			name, _ := cmd.Flags().GetString("name")
			ca, err := certs.ReadCA(from)
			if err != nil {
				return err
			}
			return issue(ca, certs.Identity{Role: certs.Role(role), Name: name}, args[0])
		},
	}
	cmd.Flags().String("ca", "", "directory of the CA")
	cmd.Flags().String("role", "", "coordinator, agent, operator or admin")
	cmd.Flags().String("name", "", "name of the member, node or person")
	for _, name := range []string{"ca", "role", "name"} {
		_ = cmd.MarkFlagRequired(name)
	}
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"coordinator", "agent", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
