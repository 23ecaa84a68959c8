package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// array is what all steps on arrays share.
type array struct {
	*Machine
	args   stack.ArrayArgs
	report report
}

// level is md's name of a level: a single is a mirror of one.
func level(l layout.Level) string {
	if l == layout.Single {
		return string(layout.RAID1)
	}
	return string(l)
}

// find returns the array as it runs.
func (s *array) find() (md.Array, error) { return s.MD.Find(s.args.After.UUID) }

// devices finds the kernel names of members, "" for those that are not there.
func (m *Machine) devices(ctx context.Context, members []stack.Partition) ([]string, error) {
	list := make([]string, len(members))
	for i, p := range members {
		path, err := m.member(ctx, p)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list[i] = path
	}
	return list, nil
}

func base(path string) string { return filepath.Base(path) }

// shaped reports whether the array has the level and the number of members that it is to have.
func shaped(a md.Array, want stack.Array) bool {
	return a.Level == level(want.Level) && a.Disks == len(want.Members)
}

// complete says why the array does not have all members that it is to have, in sync and nobody else; nil if it has.
func (s *array) complete(ctx context.Context, a md.Array, want stack.Array) error {
	there, err := s.present(ctx, a, want, nil)
	if err != nil {
		return err
	}
	if !shaped(a, want) || len(a.Members) != there {
		return fault.New(fault.Precondition, "array %s is %s of %d with %d devices, the plan says %s of %d", want.Name, a.Level, a.Disks, len(a.Members), level(want.Level), len(want.Members))
	}
	return nil
}

// present counts the members that an array has in sync, and says which it should have and has not. Those that it may lack are
// not asked for.
func (s *array) present(ctx context.Context, a md.Array, want stack.Array, mayLack []string) (int, error) {
	devices, err := s.devices(ctx, want.Members)
	if err != nil {
		return 0, err
	}
	there := 0
	for i, path := range devices {
		p := want.Members[i]
		m, in := a.Member(base(path))
		switch {
		case slices.Contains(mayLack, p.UUID):
			continue
		case path == "":
			return there, fault.New(fault.Precondition, "array %s: disk %s is not there", want.Name, p.Disk)
		case !in:
			return there, fault.New(fault.Precondition, "array %s: disk %s (%s) is not a member", want.Name, p.Disk, path)
		case m.Faulty:
			return there, fault.New(fault.Precondition, "array %s: disk %s (%s) has failed: replace it", want.Name, p.Disk, path)
		case !m.InSync || m.Replacing || m.Slot < 0:
			return there, fault.New(fault.Precondition, "array %s: disk %s (%s) is not in sync", want.Name, p.Disk, path)
		}
		there++
	}
	return there, nil
}

// Verify holds the array against the plan: members, level, sizes, consistency.
func (s *array) Verify(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	want := s.args.After
	if err := s.complete(ctx, a, want); err != nil {
		return err
	}
	if a.Component != want.Size || a.Capacity != want.Capacity() {
		return fault.New(fault.Precondition, "array %s holds %d bytes of %d a member, the plan says %d of %d", want.Name, a.Capacity, a.Component, want.Capacity(), want.Size)
	}
	return nil
}

// before refuses an array that is neither as it was planned from nor on its way.
func (s *array) before(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	return s.complete(ctx, a, s.args.Before)
}

// patience is how many looks md may be idle before it is told that it should not be: a recovery begins a moment
// after a member is added.
const patience = 20

// settle waits until done says so and md has nothing to do, reports progress and keeps to the limit, which is lifted in
// the end, however that comes. A scrub gives way if it is in the way.
func (s *array) settle(ctx context.Context, done func(md.Array) error) error {
	idle := 0
	err := poll.Until(ctx, s.Interval, func() (bool, error) {
		a, err := s.find()
		if err != nil {
			return false, err
		}
		if a.Syncing() {
			idle = 0
			s.say(a)
			return false, s.throttle(a)
		}
		why := done(a)
		if why == nil {
			return true, nil
		}
		if a.Scrubbing() {
			return false, s.MD.Idle(a)
		}
		if idle++; idle < patience {
			return false, nil
		}
		return false, fmt.Errorf("md has stopped before the end: %w", why)
	})
	if err := errors.Join(err, s.lift(s.args.After.UUID)); err != nil {
		return fmt.Errorf("wait for array %s: %w", s.args.After.Name, err)
	}
	return nil
}

// rest waits until md does nothing at all, not even a scrub: it refuses a reshape during any of it.
func (s *array) rest(ctx context.Context) error {
	return s.settle(ctx, func(a md.Array) error {
		if a.Busy() {
			return fault.New(fault.Busy, "array %s: %s goes on", s.args.After.Name, a.Action)
		}
		return nil
	})
}

func (s *array) say(a md.Array) {
	if s.report != nil && a.Total > 0 {
		s.report(executor.Progress{Done: a.Done, Total: a.Total, Rate: a.Speed})
	}
}

// whole waits for the array as it is to be in the end.
func (s *array) whole(ctx context.Context) error {
	return s.settle(ctx, func(a md.Array) error { return s.complete(ctx, a, s.args.After) })
}

// create makes an array and waits for its first sync.
type create struct{ array }

// Check refuses members that hold anything that this step did not put there.
func (s *create) Check(ctx context.Context) (executor.State, error) {
	a, err := s.find()
	if err == nil {
		if s.Verify(ctx) == nil && !a.Syncing() {
			return executor.Done, nil
		}
		return executor.Begun, nil
	}
	if !errors.Is(err, fault.NotFound) {
		return executor.Todo, err
	}
	for _, p := range s.args.After.Members {
		path, err := s.member(ctx, p)
		if err != nil {
			return executor.Todo, err
		}
		if uuid, err := s.MD.MemberOf(path); err != nil || uuid == s.args.After.UUID {
			return executor.Begun, err
		}
		found, err := s.GPT.Signatures(ctx, path)
		if err != nil {
			return executor.Todo, err
		}
		if len(found) > 0 {
			return executor.Todo, fault.New(fault.Precondition, "partition %s of disk %s holds %s", path, p.Disk, strings.Join(found, ", "))
		}
	}
	return executor.Todo, nil
}

// Do goes on with an array that runs or has all its superblocks; one that was begun and has not all of them holds
// nothing yet, since the step was never verified, and is made again.
func (s *create) Do(ctx context.Context) error {
	if _, err := s.find(); errors.Is(err, fault.NotFound) {
		if err := s.make(ctx); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return s.whole(ctx)
}

func (s *create) make(ctx context.Context) error {
	devices, err := s.devices(ctx, s.args.After.Members)
	if err != nil {
		return err
	}
	marked := 0
	for _, path := range devices {
		uuid, err := s.MD.MemberOf(path)
		if err != nil {
			return err
		}
		if uuid == s.args.After.UUID {
			marked++
		}
	}
	if marked == len(devices) {
		return s.MD.Assemble(ctx, s.args.After.Name, s.args.After.UUID, devices)
	}
	want := s.args.After
	return s.MD.Create(ctx, md.Creation{
		Name: want.Name, UUID: want.UUID, Level: level(want.Level), Component: want.Size, DataOffset: stack.Head, Chunk: stack.Chunk,
		Consistency: string(want.Consistency), AssumeClean: s.args.Zeroed, Members: devices,
	})
}

// reshape takes members in, by a recovery or by a reshape: md tells them apart by level and number.
type reshape struct{ array }

func (s *reshape) Check(ctx context.Context) (executor.State, error) {
	a, err := s.find()
	if err != nil {
		return executor.Todo, err
	}
	if !a.Syncing() && s.Verify(ctx) == nil {
		return executor.Done, nil
	}
	if a.Syncing() || shaped(a, s.args.After) || s.joined(ctx, a) {
		return executor.Begun, nil
	}
	return executor.Todo, s.before(ctx)
}

// joined reports whether a new member is in the array already.
func (s *reshape) joined(ctx context.Context, a md.Array) bool {
	devices, err := s.devices(ctx, s.args.Joins())
	if err != nil {
		return false
	}
	for _, path := range devices {
		if _, in := a.Member(base(path)); in && path != "" {
			return true
		}
	}
	return false
}

func (s *reshape) Do(ctx context.Context) error {
	// md refuses a reshape during a resync, such as the one after a crash.
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.untouched(ctx); err != nil {
		return err
	}
	if err := s.join(ctx); err != nil {
		return err
	}
	if err := s.shape(ctx); err != nil {
		return errors.Join(err, s.lift(s.args.After.UUID))
	}
	return s.whole(ctx)
}

// untouched repeats, for an array on which nothing was begun, what Check asks for: it may have been syncing then.
func (s *reshape) untouched(ctx context.Context) error {
	a, err := s.find()
	if err != nil || shaped(a, s.args.After) || s.joined(ctx, a) {
		return err
	}
	return s.complete(ctx, a, s.args.Before)
}

// shape starts the reshape unless it has begun.
func (s *reshape) shape(ctx context.Context) error {
	a, err := s.find()
	want := s.args.After
	if err != nil || shaped(a, want) {
		return err
	}
	if err := s.throttle(a); err != nil { // or its first seconds would go unbounded
		return err
	}
	return s.MD.Reshape(ctx, a, level(want.Level), len(want.Members))
}

// join adds the members of the array to be that are not in the array.
func (s *array) join(ctx context.Context) error {
	_, err := s.Machine.join(ctx, s.args.After)
	return err
}

// join adds the members that an array is to have and has not, and returns their devices. What is left of devices that are gone
// is taken out first. One that was there before comes back with what it holds: md fills in what it missed, by the
// bitmap if there is one (mdadm(8), --add). All of them must be there.
func (m *Machine) join(ctx context.Context, want stack.Array) ([]string, error) {
	devices, err := m.devices(ctx, want.Members)
	if err != nil {
		return nil, err
	}
	if err := m.forgetGone(ctx, want.UUID); err != nil {
		return nil, err
	}
	a, err := m.MD.Find(want.UUID)
	if err != nil {
		return nil, err
	}
	var added []string
	for i, path := range devices {
		if path == "" {
			return added, fault.New(fault.Precondition, "array %s: disk %s is not there", want.Name, want.Members[i].Disk)
		}
		if _, in := a.Member(base(path)); in {
			continue
		}
		if err := m.MD.Add(ctx, a, path); err != nil {
			return added, err
		}
		added = append(added, path)
	}
	return added, nil
}

// forgetGone takes members out whose devices no longer exist.
func (m *Machine) forgetGone(ctx context.Context, uuid string) error {
	a, err := m.MD.Find(uuid)
	if err != nil {
		return err
	}
	for _, member := range a.Members {
		if _, err := os.Stat("/sys/class/block/" + member.Device); errors.Is(err, os.ErrNotExist) {
			return m.MD.RemoveDetached(ctx, a)
		}
	}
	return nil
}

// replace copies a member to its successor while it serves.
type replace struct{ array }

func (s *replace) Check(ctx context.Context) (executor.State, error) {
	a, err := s.find()
	if err != nil {
		return executor.Todo, err
	}
	if s.Verify(ctx) == nil {
		return executor.Done, nil
	}
	devices, err := s.devices(ctx, s.args.Joins())
	if err != nil {
		return executor.Todo, err
	}
	for _, path := range devices {
		if _, in := a.Member(base(path)); in {
			return executor.Begun, nil
		}
	}
	_, err = s.present(ctx, a, s.args.Before, s.args.MayLack)
	return executor.Todo, err
}

// Verify asks for all members but those that the plan replaces after this one, and that the old one is out.
func (s *replace) Verify(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	if _, err := s.present(ctx, a, s.args.After, s.args.MayLack); err != nil {
		return err
	}
	path, err := s.leaving(ctx)
	if _, in := a.Member(base(path)); err == nil && in && path != "" {
		err = fault.New(fault.Precondition, "array %s: disk %s is still a member", s.args.After.Name, s.args.Leaves.Disk)
	}
	return err
}

func (s *replace) Do(ctx context.Context) error {
	if err := s.rest(ctx); err != nil {
		return err
	}
	old, err := s.leaving(ctx)
	if err != nil {
		return err
	}
	if err := s.begin(ctx, old); err != nil {
		return err
	}
	if err := s.settle(ctx, func(a md.Array) error { return s.copied(ctx, a, old) }); err != nil {
		return err
	}
	return s.leave(ctx)
}

// begin adds the successor and starts the copy. Meanwhile md is frozen, or it would fill the place of another member that is
// missing with the successor of one that serves.
func (s *replace) begin(ctx context.Context, old string) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	m, in := a.Member(base(old))
	copies := in && serves(m)
	if copies {
		if err := s.MD.Freeze(a); err != nil {
			return err
		}
	}
	err = s.joinNew(ctx)
	if err == nil && copies {
		err = s.copyTo(ctx, old)
	}
	return errors.Join(err, s.thaw())
}

// thaw ends what begin froze, or an earlier run that was ended in the middle of it.
func (s *array) thaw() error {
	a, err := s.find()
	if err == nil && a.Action == "frozen" {
		err = s.MD.Idle(a)
	}
	return err
}

// joinNew adds the successor alone: others that are missing are replaced by steps of their own.
func (s *replace) joinNew(ctx context.Context) error {
	want := s.args.After
	want.Members = s.args.Joins()
	_, err := s.Machine.join(ctx, want)
	return err
}

// copyTo starts the copy to the successor unless that has a place already.
func (s *replace) copyTo(ctx context.Context, old string) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	fresh, err := s.member(ctx, s.args.Joins()[0])
	if err != nil {
		return err
	}
	if n, _ := a.Member(base(fresh)); serves(n) {
		return nil
	}
	return s.MD.Replace(ctx, a, old, fresh)
}

// copied says why the new member has not taken over.
func (s *replace) copied(ctx context.Context, a md.Array, old string) error {
	path, err := s.member(ctx, s.args.Joins()[0])
	if err != nil {
		return err
	}
	return succeeded(a, base(old), base(path))
}

// leaving is the device of the member that leaves, "" if it is not there.
func (s *array) leaving(ctx context.Context) (string, error) {
	path, err := s.member(ctx, *s.args.Leaves)
	if errors.Is(err, fault.NotFound) {
		return "", nil
	}
	return path, err
}

// leave takes the old member out: md marks it as faulty once the copy is whole, and it is marked here where there was none.
func (s *array) leave(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	path, err := s.leaving(ctx)
	if err != nil {
		return err
	}
	if path == "" {
		return s.MD.RemoveDetached(ctx, a)
	}
	m, in := a.Member(base(path))
	if !in {
		return nil
	}
	if serves(m) {
		if err := mayGo(a, base(path)); err != nil {
			return err
		}
		if err := s.MD.Fail(ctx, a, path); err != nil {
			return err
		}
	}
	return s.MD.Remove(ctx, a, path)
}

// drop takes a member out before its successor is there.
type drop struct{ array }

// Check refuses a member that serves while another one is missing: without it the data would be lost, or nearly.
func (s *drop) Check(ctx context.Context) (executor.State, error) {
	if s.Verify(ctx) == nil {
		return executor.Done, nil
	}
	a, err := s.find()
	if err != nil {
		return executor.Todo, err
	}
	if a.Syncing() {
		return executor.Begun, nil // Do looks again once md is at rest
	}
	return executor.Todo, s.mayDrop(ctx)
}

func (s *drop) Do(ctx context.Context) error {
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.mayDrop(ctx); err != nil {
		return err
	}
	return s.leave(ctx)
}

// mayDrop says why the member must not leave: it serves, and not all others are there in sync.
func (s *drop) mayDrop(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	path, err := s.leaving(ctx)
	if err != nil {
		return err
	}
	if m, in := a.Member(base(path)); !in || !serves(m) {
		return nil
	}
	if err := s.complete(ctx, a, s.args.Before); err != nil {
		return err
	}
	return mayGo(a, base(path))
}

// Verify confirms that the member is out and no other is missing.
func (s *drop) Verify(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	path, err := s.leaving(ctx)
	if err != nil {
		return err
	}
	if _, in := a.Member(base(path)); in && path != "" || len(a.Members) != len(s.args.After.Members)-1 {
		return fault.New(fault.Precondition, "array %s: disk %s is still a member, or another one is not", s.args.After.Name, s.args.Leaves.Disk)
	}
	return nil
}

// widen gives an array of one member all of its partition.
type widen struct{ array }

func (s *widen) Check(ctx context.Context) (executor.State, error) {
	if s.Verify(ctx) == nil {
		return executor.Done, nil
	}
	return executor.Todo, s.before(ctx)
}

func (s *widen) Do(ctx context.Context) error {
	a, err := s.find()
	if err != nil {
		return err
	}
	if err := s.MD.Widen(ctx, a, s.args.After.Size); err != nil {
		return err
	}
	return s.whole(ctx)
}

// protect changes an array's consistency policy.
type protect struct{ array }

func (s *protect) Check(ctx context.Context) (executor.State, error) {
	if s.Verify(ctx) == nil {
		return executor.Done, nil
	}
	return executor.Begun, s.array.Verify(ctx)
}

func (s *protect) Do(ctx context.Context) error {
	if err := s.rest(ctx); err != nil {
		return err
	}
	a, err := s.find()
	if err != nil {
		return err
	}
	return s.MD.Protect(ctx, a, string(s.args.After.Consistency))
}

// Verify holds the policy against the plan, too.
func (s *protect) Verify(ctx context.Context) error {
	if err := s.array.Verify(ctx); err != nil {
		return err
	}
	a, err := s.find()
	if err == nil && a.Consistency != string(s.args.After.Consistency) {
		return fault.New(fault.Precondition, "array %s has consistency policy %s, the plan says %s", s.args.After.Name, a.Consistency, s.args.After.Consistency)
	}
	return err
}
