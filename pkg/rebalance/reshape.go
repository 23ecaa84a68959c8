package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// KindReshape is the kind of steps that change the CRUSH map, with upmaps that keep all data where it is.
const KindReshape plan.Kind = "crush-change"

// Reshape is what such a step does.
type Reshape struct {
	Wave

	Edits []Edit `json:"edits"`
	// Before and After are SHA-256 of the CRUSH map.
	Before string `json:"crush_before"`
	After  string `json:"crush_after"`
}

// reshape does one step. The map is replaced as a whole, and only where it is the one that the plan was made from; movement is
// forbidden until the upmaps are set.
type reshape struct {
	*wave

	Edits         []Edit
	Before, After string
}

var _ executor.Step = (*reshape)(nil)

// Check refuses where the CRUSH map, or a PG's upmap, is neither what the plan saw nor what it wants.
func (r *reshape) Check(ctx context.Context) (executor.State, error) {
	now, err := r.look(ctx)
	if err != nil {
		return executor.Todo, err
	}
	switch now.hash {
	case r.After:
	case r.Before:
		_, err := r.set(ctx)
		return executor.Todo, err
	default:
		return executor.Todo, fault.New(fault.Precondition, "the CRUSH map is neither what the plan saw nor what it wants: somebody else changes it; plan again")
	}
	if now.held || r.missing(now.upmaps) > 0 {
		return executor.Begun, nil
	}
	at, err := ceph.LookAtPGs(ctx, r.cluster)
	if err != nil || !at.Settled {
		return executor.Begun, err
	}
	return executor.Done, nil
}

// crushNow is the CRUSH map in force and what belongs to it.
type crushNow struct {
	cluster placement.Cluster
	version int64
	hash    string
	places  string // see placesHash
	upmaps  map[string][][2]int32
	held    bool // norebalance is set
}

func (w *wave) look(ctx context.Context) (now crushNow, err error) {
	err = w.patiently(ctx, func() (err error) {
		now, err = lookAtCrush(ctx, w.cluster)
		return err
	})
	return now, err
}

func lookAtCrush(ctx context.Context, c ceph.Cluster) (crushNow, error) {
	now := crushNow{upmaps: map[string][][2]int32{}}
	dump, err := c.Mon(ctx, map[string]any{"prefix": "osd dump"}, nil)
	if err != nil {
		return now, err
	}
	if now.cluster.OSDs, err = osdmap.Parse(dump); err != nil {
		return now, err
	}
	var rest struct {
		Version int64 `json:"crush_version"`
	}
	if err := json.Unmarshal(dump, &rest); err != nil {
		return now, fmt.Errorf("read the version of the CRUSH map: %w", err)
	}
	if now.held, err = isHeld(dump); err != nil {
		return now, err
	}
	now.version = rest.Version
	for pg, pairs := range now.cluster.OSDs.UpmapItems {
		now.upmaps[pg.String()] = plain(pairs)
	}
	binary, err := c.Mon(ctx, map[string]any{"prefix": "osd getcrushmap"}, nil)
	if err != nil {
		return now, err
	}
	if now.cluster.Crush, err = crush.Parse(binary); err != nil {
		return now, err
	}
	if now.hash, err = crushHash(now.cluster.Crush); err != nil {
		return now, err
	}
	now.places, err = placesHash(now.cluster.Crush)
	return now, err
}

// isHeld reports whether a dump of the OSD map has the flag that forbids movement.
func isHeld(dump []byte) (bool, error) {
	var rest struct {
		Flags []string `json:"flags_set"`
	}
	if err := json.Unmarshal(dump, &rest); err != nil {
		return false, fmt.Errorf("read the flags of the OSD map: %w", err)
	}
	return slices.Contains(rest.Flags, holding), nil
}

// missing counts the upmaps that are not as the step leaves them.
func (r *reshape) missing(upmaps map[string][][2]int32) (n int) {
	for _, u := range r.Upmaps {
		if !slices.Equal(orEmpty(upmaps[u.PG]), u.To) {
			n++
		}
	}
	return n
}

// holding is the flag under which Ceph moves nothing that is only misplaced.
const holding = "norebalance"

// Do replaces the map, sets the upmaps and waits until all PGs are where they belong.
func (r *reshape) Do(ctx context.Context) error {
	if err := r.change(ctx); err != nil {
		return r.after(ctx, err)
	}
	return r.settle(ctx)
}

// change does all that movement is forbidden for.
func (r *reshape) change(ctx context.Context) error {
	for _, step := range []func(context.Context) error{r.takeOver, r.hold, r.replace} {
		if err := r.patiently(ctx, func() error { return step(ctx) }); err != nil {
			return err
		}
	}
	if err := r.keep(ctx); err != nil {
		return err
	}
	return r.patiently(ctx, func() error { return r.letGo(ctx) })
}

// after lets go where the step has failed and the map is the one before: nobody may come back to it. Where the map is new, movement stays
// forbidden until upmaps keep data where it is. A run that is to end leaves all that to who goes on, or plans anew.
func (r *reshape) after(ctx context.Context, failed error) error {
	if ctx.Err() != nil {
		return failed
	}
	now, err := r.look(ctx)
	if err == nil && now.held && now.hash == r.Before {
		err = r.patiently(ctx, func() error { return r.letGo(ctx) })
		now.held = err != nil
	}
	if err == nil && !now.held {
		return failed
	}
	return fmt.Errorf("%w; %s is set and nothing that is only misplaced moves: resume the plan, or `ceph osd unset %s`", failed, holding, holding)
}

// finish ends what a run of a step has begun, and nobody will go on with: data is kept where it is as far as that can be, and then may move.
func finish(ctx context.Context, c ceph.Cluster, step plan.Step) error {
	if step.Kind != KindReshape {
		return nil
	}
	made, err := Steps(c, nil)[KindReshape](step, func(executor.Progress) {})
	if err != nil {
		return err
	}
	r := made.(*reshape) //nolint:forcetypeassert // the kind's
	now, err := r.look(ctx)
	if err != nil || !now.held {
		return err
	}
	if now.hash == r.After {
		for _, u := range r.Upmaps {
			if slices.Equal(orEmpty(now.upmaps[u.PG]), u.To) {
				continue
			}
			if err := r.put(ctx, u, func() error { return nil }); err != nil && (ceph.Passing(err) || ctx.Err() != nil) {
				return err // an OSD that is gone is no reason to hold all others
			}
		}
	}
	return r.patiently(ctx, func() error { return r.letGo(ctx) })
}

func (r *reshape) hold(ctx context.Context) error {
	_, err := r.cluster.Mon(ctx, map[string]any{"prefix": "osd set", "key": holding}, nil)
	return err
}

func (r *reshape) letGo(ctx context.Context) error {
	_, err := r.cluster.Mon(ctx, map[string]any{"prefix": "osd unset", "key": holding}, nil)
	return err
}

// replace writes the new CRUSH map, if the one in force is still the plan's. The monitors refuse it when another has come meanwhile.
func (r *reshape) replace(ctx context.Context) error {
	now, err := lookAtCrush(ctx, r.cluster)
	if err != nil || now.hash == r.After {
		return err
	}
	if now.hash != r.Before {
		return fault.New(fault.Precondition, "the CRUSH map has changed since the step was checked: plan again")
	}
	path, err := edited(now.cluster, r.Edits)
	if err != nil {
		return err
	}
	hash, err := crushHash(path.After.Crush)
	if err != nil {
		return err
	}
	if hash != r.After {
		return fault.New(fault.Precondition, "this program makes another CRUSH map of the plan's changes than the one that planned them: plan again")
	}
	binary, err := path.After.Crush.Binary()
	if err != nil {
		return fmt.Errorf("encode CRUSH map: %w", err)
	}
	_, err = r.cluster.Mon(ctx, map[string]any{"prefix": "osd setcrushmap", "prior_version": now.version}, binary)
	return err
}

// keep sets the upmaps.
func (r *reshape) keep(ctx context.Context) error {
	now, err := r.look(ctx)
	if err != nil {
		return err
	}
	if now.hash != r.After {
		return fault.New(fault.Precondition, "the CRUSH map is not the one that was just written: plan again")
	}
	r.looked = r.now()
	for _, u := range r.Upmaps {
		was := orEmpty(now.upmaps[u.PG])
		if slices.Equal(was, u.To) {
			continue
		}
		if err := r.put(ctx, u, func() error { return r.unchanged(ctx, u, was) }); err != nil {
			return err
		}
		r.again()
	}
	return nil
}

// unchanged refuses where somebody else has gone on since the map was replaced: all is held then until the upmaps are set.
func (r *reshape) unchanged(ctx context.Context, u Upmap, was [][2]int32) error {
	now, err := lookAtCrush(ctx, r.cluster)
	if err != nil {
		return err
	}
	if is := orEmpty(now.upmaps[u.PG]); now.hash != r.After || !now.held || !slices.Equal(is, was) && !slices.Equal(is, u.To) {
		return fault.New(fault.Precondition, "while upmaps were set, somebody else changed the CRUSH map, %s or the upmap of PG %s: plan again", holding, u.PG)
	}
	return nil
}

// Verify finds the map and the upmaps in force.
func (r *reshape) Verify(ctx context.Context) error {
	now, err := r.look(ctx)
	if err != nil {
		return err
	}
	if n := r.missing(now.upmaps); n > 0 || now.hash != r.After || now.held {
		return fault.New(fault.Precondition, "the CRUSH map is not as the step leaves it: %d of %d upmaps are missing, %s is set: %v", n, len(r.Upmaps), holding, now.held)
	}
	return nil
}
