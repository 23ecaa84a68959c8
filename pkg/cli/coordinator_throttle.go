package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// throttleView is the throttle as scripts get it.
type throttleView struct {
	Backfills uint32 `json:"backfills_per_osd"`
	Bytes     uint64 `json:"bytes_per_second"`
	Latency   int64  `json:"commit_latency_milliseconds"`
}

func coordinatorThrottleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "throttle", Short: "Show or set what moving data may cost; it counts at once, also for plans at work", Args: cobra.NoArgs,
		Long:    "Without flags it shows the bounds. PGs that move already go on: Ceph moves a PG whole; no more are let move until there is room. 0 is no bound.",
		Example: "  holdfast coordinator throttle --rate 50MB/s --latency 30ms",
		RunE:    runThrottle,
	}
	flags := cmd.Flags()
	flags.Uint32("backfills", 0, "PGs that move to or from one OSD at a time")
	flags.String("rate", "0", "how much is let move in a second, such as 50MB/s")
	flags.Duration("latency", 0, "the slowest OSD's commit latency, above which nothing more is let move, such as 30ms")
	addOutputFlag(cmd)
	return cmd
}

func runThrottle(cmd *cobra.Command, _ []string) error {
	return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		m, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Throttle, error) {
			return api.GetThrottle(ctx, &v1.GetThrottleRequest{}, o...)
		})
		if err != nil {
			return err
		}
		changed, err := changeThrottle(cmd, m)
		if err != nil {
			return err
		}
		if changed {
			m, err = coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Throttle, error) {
				return api.SetThrottle(ctx, m, o...)
			})
			if err != nil {
				return err
			}
		}
		v := throttleView{m.GetBackfillsPerOsd(), m.GetBytesPerSecond(), m.GetCommitLatency().AsDuration().Milliseconds()}
		return emit(cmd, v, nil, func(out io.Writer) {
			fmt.Fprintf(out, "backfills an OSD  %s\nrate              %s\ncommit latency    %s\n",
				bound(v.Backfills > 0, fmt.Sprint(v.Backfills)), bound(v.Bytes > 0, storage.Bytes(v.Bytes).String()+"/s"), bound(v.Latency > 0, (time.Duration(v.Latency)*time.Millisecond).String()))
		})
	})
}

func bound(set bool, text string) string {
	if !set {
		return "no bound"
	}
	return "at most " + text
}

// changeThrottle sets what flags say, and reports whether they say anything.
func changeThrottle(cmd *cobra.Command, m *v1.Throttle) (changed bool, err error) {
	flags := cmd.Flags()
	if flags.Changed("backfills") {
		m.BackfillsPerOsd, _ = flags.GetUint32("backfills")
		changed = true
	}
	if flags.Changed("rate") {
		text, _ := flags.GetString("rate")
		size, err := storage.ParseBytes(strings.TrimSuffix(text, "/s"))
		if err != nil {
			return false, fmt.Errorf("--rate: %w", err)
		}
		m.BytesPerSecond, changed = uint64(size), true
	}
	if flags.Changed("latency") {
		latency, _ := flags.GetDuration("latency")
		m.CommitLatency, changed = durationpb.New(latency), true
	}
	return changed, nil
}
