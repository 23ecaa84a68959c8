package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func codesOf(s agent.Sight) string {
	var list []string
	for _, c := range s.Checks() {
		list = append(list, c.Code)
	}
	return strings.Join(list, " ")
}

func TestWhatIsSeenIsSaid(t *testing.T) {
	s, _ := made(t, "media")
	five := s.Arrays[0]
	five.Level = "raid5"
	inventory := disk.Inventory{Generation: 1, Disks: []storage.Disk{{ID: "D1", Name: "sda"}, {ID: "D2", Name: "sdb"}}}
	array := func(a md.Array) []agent.ArraySight {
		return []agent.ArraySight{{Stack: "media", Name: five.Name, Want: five, Runs: a.UUID != "", Array: a}}
	}
	health := func(state smart.State) map[storage.DiskID]smart.Health {
		return map[storage.DiskID]smart.Health{"D1": {State: state, Concerns: []string{"it says so"}}}
	}
	for name, c := range map[string]struct {
		sight agent.Sight
		want  string
	}{
		"all is well":          {agent.Sight{Inventory: inventory, Health: health(smart.Good), Arrays: array(md.Array{UUID: "u"})}, ""},
		"unknown health":       {agent.Sight{Inventory: inventory, Health: health(smart.Unknown)}, ""},
		"a disk fails":         {agent.Sight{Inventory: inventory, Health: health(smart.Failing)}, "HF-DISK-FAILING"},
		"a disk is worn":       {agent.Sight{Inventory: inventory, Health: health(smart.Worn)}, "HF-DISK-WORN"},
		"a disk is gone":       {agent.Sight{Missing: []agent.Missing{{Stack: "media", Disk: "D1"}}}, "HF-DISK-GONE"},
		"an array is down":     {agent.Sight{Arrays: array(md.Array{})}, "HF-ARRAY-DOWN"},
		"an array lacks one":   {agent.Sight{Arrays: array(md.Array{UUID: "u", Degraded: 1, Disks: 3})}, "HF-ARRAY-DEGRADED"},
		"parity is wrong":      {agent.Sight{Arrays: array(md.Array{UUID: "u", Mismatches: 8, Action: "idle"})}, "HF-ARRAY-MISMATCH"},
		"a scrub is under way": {agent.Sight{Arrays: array(md.Array{UUID: "u", Mismatches: 8, Action: "check"})}, ""},
		"nothing can be seen":  {agent.Sight{Err: "no sysfs"}, "HF-ARRAY-DOWN"},
	} {
		if got := codesOf(c.sight); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAFailingDiskIsReplacedByTheSmallestThatFits(t *testing.T) {
	s, _ := made(t, "media")
	disks := []storage.Disk{
		{ID: "D1", Size: 8 * storage.GiB, Reasons: []storage.Reason{{Code: storage.ReasonHeld}}}, {ID: "D2", Size: 8 * storage.GiB, Reasons: []storage.Reason{{Code: storage.ReasonHeld}}},
		{ID: "small", Size: 4 * storage.GiB}, {ID: "large", Size: 16 * storage.GiB}, {ID: "right", Size: 9 * storage.GiB},
		{ID: "taken", Size: 8 * storage.GiB, Reasons: []storage.Reason{{Code: storage.ReasonMounted}}},
	}
	p, ok, err := agent.Replacement(s, "D1", disks)
	if err != nil || !ok || !slices.Equal(p.Of(plan.Take), []plan.DiskID{"right"}) || !slices.Equal(p.Of(plan.Release), []plan.DiskID{"D1"}) {
		t.Fatal(p.Text(), ok, err)
	}
	if !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Kind == stack.KindReplace }) {
		t.Error("it is not copied while it serves")
	}
	for _, c := range []struct {
		disk  storage.DiskID
		disks []storage.Disk
	}{{"D1", disks[:3]}, {"large", disks}} {
		if _, ok, err := agent.Replacement(s, c.disk, c.disks); ok || err != nil {
			t.Error(c.disk, ok, err)
		}
	}
}

func TestAStackUsesWhatItsDisksHaveGrownBy(t *testing.T) {
	s, _ := made(t, "media")
	sized := func(first, second storage.Bytes) []storage.Disk {
		held := []storage.Reason{{Code: storage.ReasonHeld}}
		return []storage.Disk{{ID: "D1", Size: first * storage.GiB, Reasons: held}, {ID: "D2", Size: second * storage.GiB, Reasons: held}, {ID: "D3", Size: 99 * storage.GiB}}
	}
	for name, c := range map[string]struct {
		disks []storage.Disk
		want  bool
	}{
		"none has grown": {sized(8, 8), false}, "one has, and nothing protects what it could hold": {sized(12, 8), false}, "both have": {sized(12, 13), true}, "one is gone": {sized(12, 13)[1:], false},
	} {
		p, ok, err := agent.Enlargement(s, c.disks)
		if err != nil || ok != c.want {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		if ok && (p.After-p.Before != 4*storage.GiB-stack.Extent || len(p.Of(plan.Take)) > 0 || p.Steps[0].Kind != stack.KindDiskGrow) {
			t.Errorf("%s: from %d to %d\n%s", name, p.Before, p.After, p.Text())
		}
	}
}

func TestWhatIsProposedFollowsTheSizesOfDisks(t *testing.T) {
	dir := t.TempDir()
	s, p := made(t, "media")
	record(t, ledger.Of(dir), p)
	l := begin(t, dir)
	for _, size := range []storage.Bytes{12, 12, 16, 8} {
		sight := agent.Sight{Arrays: []agent.ArraySight{{Stack: "media"}}, Inventory: disk.Inventory{Generation: 1, Disks: []storage.Disk{
			{ID: "D1", Size: size * storage.GiB, Reasons: []storage.Reason{{Code: storage.ReasonHeld}}}, {ID: "D2", Size: size * storage.GiB, Reasons: []storage.Reason{{Code: storage.ReasonHeld}}},
		}}}
		l.Propose(sight)
		status, err := l.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []agentapi.Proposal{}
		if q, ok, err := agent.Enlargement(s, sight.Inventory.Disks); ok {
			want = append(want, agentapi.Proposal{ID: q.ID, Subject: q.Subject, What: q.What})
		} else if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(status.Proposed, want) {
			t.Errorf("disks of %d GiB: %v, want %v", size, status.Proposed, want)
		}
	}
}

func TestAPlanThatCannotBeKeptIsProposedAgain(t *testing.T) {
	dir := t.TempDir()
	s, p := made(t, "media")
	record(t, ledger.Of(dir), p)
	var log bytes.Buffer
	a := begin(t, dir)
	a.Log = slog.New(slog.NewTextHandler(&log, nil))
	sight := agent.Sight{Arrays: []agent.ArraySight{{Stack: "media"}}, Inventory: disk.Inventory{Generation: 1, Disks: []storage.Disk{{ID: "D1", Size: 12 * storage.GiB}, {ID: "D2", Size: 12 * storage.GiB}}}}
	q, ok, err := agent.Enlargement(s, sight.Inventory.Disks)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	inTheWay := filepath.Join(dir, "plans", string(q.ID)+".plan")
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	a.Propose(sight)
	a.Propose(sight)
	if n := strings.Count(log.String(), "the growth of disks cannot be used"); n != 1 || strings.Contains(log.String(), "is proposed") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	a.Propose(sight)
	if status, err := a.client.Status(t.Context()); err != nil || len(status.Proposed) != 1 || status.Proposed[0].ID != q.ID {
		t.Errorf("%+v, %v", status.Proposed, err)
	}
}

// record writes a journal as if the plan had been run.
func record(t *testing.T, book ledger.Ledger, p plan.Plan) {
	t.Helper()
	j, err := journal.Create(book.Dir, p)
	if err == nil {
		err = errors.Join(j.Append(executor.Record{Event: executor.StepBegun}), j.Append(executor.Record{Event: executor.Completed, Step: len(p.Steps)}), j.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheMonitorLooksAsksAndScrubs(t *testing.T) {
	dir := t.TempDir()
	book := ledger.Of(dir)
	s, p := made(t, "media")
	record(t, book, p)
	now := time.Unix(1e9, 0)
	var scrubbed []string
	var busy string
	m := &agent.Monitor{
		Ledger: book, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }, HealthEvery: time.Hour, ScrubEvery: 24 * time.Hour,
		Inventory: func() disk.Inventory {
			return disk.Inventory{Generation: 1, Disks: []storage.Disk{
				{ID: "D1", Name: "sda", Partitions: []storage.Partition{{Name: "sda1"}}, Reasons: []storage.Reason{{Code: storage.ReasonHeld}}}, {ID: "D9", Name: "sdb", Size: 9 * storage.GiB},
			}}
		},
		Arrays: func() ([]md.Array, error) {
			return []md.Array{{UUID: s.Arrays[0].UUID, Action: busy, Members: []md.Member{{Device: "sda1", Faulty: true}}}}, nil
		},
		Scrub:  func(a md.Array) error { scrubbed = append(scrubbed, a.UUID); return nil },
		Health: func(context.Context, string) (smart.Health, error) { return smart.Health{State: smart.Good}, nil },
	}
	m.Ask(t.Context())
	m.Look(t.Context())
	if got := codesOf(m.Sight()); got != "HF-DISK-GONE HF-DISK-FAILING" {
		t.Errorf("got %q", got)
	}
	if h := m.Sight().Health; h["D1"].State != smart.Good || len(h) != 2 {
		t.Errorf("health %v", h)
	}
	if len(scrubbed) > 0 {
		t.Error("a new array was scrubbed")
	}
	now, busy = now.Add(25*time.Hour), "resync"
	m.Look(t.Context())
	if len(scrubbed) > 0 {
		t.Error("scrubbed while md is at work")
	}
	busy = "idle"
	m.Look(t.Context())
	m.Look(t.Context())
	if len(scrubbed) != 1 {
		t.Errorf("%d scrubs", len(scrubbed))
	}

	l := begin(t, dir)
	l.Propose(m.Sight())
	list, err := l.client.Plans(t.Context())
	if err != nil || len(list) != 2 || list[1].Status.Phase != executor.Proposed || !slices.Equal(list[1].Plan.Of(plan.Take), []plan.DiskID{"D9"}) {
		t.Fatalf("%v, %v", list, err)
	}
	if _, err := l.client.Do(t.Context(), list[1].Plan.ID, "cancel", ""); err != nil {
		t.Fatal(err)
	}
	l.Propose(m.Sight())
	if list, err := l.client.Plans(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("what was withdrawn came again: %v, %v", list, err)
	}

	server := httptest.NewServer(l.MetricsHandler(m.Sight))
	defer server.Close()
	text := get(t, server.URL+"/metrics")
	for _, want := range []string{
		`holdfast_disks{state="free"} 1`, `holdfast_disk_health{disk="D1",state="good"} 1`, `holdfast_array_state{array="hf-media-1",stack="media",state="clean"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "plans", "scrubs", s.Arrays[0].UUID)); err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMetricsAreForThisMachineAlone(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":9284", "192.0.2.1:9284", "localhost", "nonsense:1"} {
		if l, err := agent.ListenMetrics(t.Context(), address); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v %v", address, l, err)
		}
	}
	l, err := agent.ListenMetrics(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
