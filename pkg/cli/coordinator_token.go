package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

func coordinatorTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens by which agents and coordinators get their certificates"}
	cmd.AddCommand(coordinatorTokenCreate())
	return cmd
}

// joiners are the roles that may join with a token.
var joiners = map[string]certs.Role{"agent": certs.Agent, "member": certs.Coordinator}

// tokenView is a token as scripts get it.
type tokenView struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

func coordinatorTokenCreate() *cobra.Command {
	var role, name, file string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token for one process; it is good once, until it expires", Args: cobra.NoArgs,
		Long: "The token is a secret: who has it joins as --name. It holds the coordinators' addresses and their CA, by which the one who joins knows them. " +
			"The coordinators must have the CA's key (holdfastd coordinator --ca).",
		Example: "  holdfast coordinator token create --role agent --name n7 --ttl 1h --out n7.token\n  holdfastd agent --node-id n7 --join n7.token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, ok := joiners[role]
			if !ok {
				return fault.New(fault.Invalid, "--role %s: agent or member", role)
			}
			return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
				t, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Token, error) {
					return api.CreateToken(ctx, &v1.CreateTokenRequest{Role: string(who), Name: name, Ttl: durationpb.New(ttl)}, o...)
				})
				if err != nil {
					return err
				}
				v := tokenView{t.GetToken(), t.GetExpires().AsTime()}
				fmt.Fprintf(cmd.ErrOrStderr(), "for %s/%s, good once, until %s\n", who, name, v.Expires.Local().Format(time.DateTime))
				if file != "" {
					return certs.WriteSecret(file, []byte(v.Token+"\n"))
				}
				return emit(cmd, v, nil, func(out io.Writer) { fmt.Fprintln(out, v.Token) })
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "agent", "agent or member")
	cmd.Flags().StringVar(&name, "name", "", "name of the node or the member")
	cmd.Flags().StringVar(&file, "out", "", "write the token to this file, for its owner alone, in place of the standard output")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is good, at most seven days")
	_ = cmd.MarkFlagRequired("name")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"agent", "member"}, cobra.ShellCompDirectiveNoFileComp))
	addOutputFlag(cmd)
	return cmd
}
