package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// nearFull is the share of a pool in use, in percent, from which it is worth a word: Ceph's own
// mon_osd_nearfull_ratio.
const nearFull = 85

// Pending says why a volume or snapshot is not there or not to be had, for each that name may mean:
// a CSI name, an id, NAMESPACE/NAME or NAME of a claim, or a claim's UID. Clusters that cannot be
// asked answer too.
func (s *Server) Pending(ctx context.Context, name string) ([]volumeapi.Pending, error) {
	var found []volumeapi.Pending
	clusters, err := s.Clusters.Clusters()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range clusters {
		site, err := s.connect(ctx, c.ID, nil)
		var all reading
		if err == nil {
			all, err = s.read(ctx, site)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			found = append(found, volumeapi.Pending{
				Name: name, Driver: s.Backend.Driver(), Cluster: c.ID, State: "unknown",
				Reasons: []volumeapi.Reason{{What: fmt.Sprintf("cluster %s cannot be asked: %v", c.ID, err), Next: unreachable(err)}},
			})
			continue
		}
		for _, k := range all.list {
			if !ofCluster(k.record, c.ID) || !means(name, k.record.Name, k.record.Handle(c.ID).String(), k.record.Owner) {
				continue
			}
			seen[k.record.Kind+" "+k.record.Name] = true
			p, err := s.explain(ctx, k)
			if err != nil {
				return nil, err
			}
			found = append(found, p)
		}
	}
	for _, f := range s.refused.all() {
		if seen[f.kind+" "+f.name] || !means(name, f.name, "", f.owner) {
			continue
		}
		found = append(found, volumeapi.Pending{
			Name: f.name, Driver: s.Backend.Driver(), Kind: f.kind, State: "unknown", Claim: claimOf(&record.Record{Owner: f.owner}),
			Reasons: []volumeapi.Reason{s.refusalReason(f)},
		})
	}
	return found, nil
}

// means reports whether a person who says name may mean what is called csiName.
func means(name, csiName, id string, owner map[string]string) bool {
	if name == csiName || name == id || csiName == "pvc-"+name {
		return name != ""
	}
	claim := claimOf(&record.Record{Owner: owner})
	return claim != nil && (name == claim.Name || name == claim.String() || name == claim.Volume)
}

func unreachable(err error) string {
	switch {
	case errors.Is(err, fault.Denied):
		return "the monitors refuse the controller's user: compare --credentials-dir with `ceph auth ls`"
	case errors.Is(err, fault.NotFound):
		return "give the controller credentials of its own for that cluster (--credentials-dir)"
	default:
		return "see that its monitors run and are reached from here: `holdfast status`, `ceph -s`; what waits goes on by itself then"
	}
}

// refusalReason puts the last failed call into words.
func (s *Server) refusalReason(f refusal) volumeapi.Reason {
	ago := s.Now().Sub(f.at).Round(time.Second)
	r := volumeapi.Reason{What: fmt.Sprintf("asked for %s ago, it was refused: %v", ago, f.err)}
	switch {
	case errors.Is(f.err, fault.Invalid):
		r.Next = "mend the StorageClass (parameters of one that is there cannot be changed: make another) or the claim, and make the claim anew"
	case errors.Is(f.err, fault.Exhausted):
		r.Next = "add OSDs or delete volumes; it is tried again by itself"
	case errors.Is(f.err, fault.Denied):
		r.Next = "look at the Secret that the StorageClass names, and at the user's rights (deploy/ceph-users.md)"
	case errors.Is(f.err, fault.NotFound):
		r.Next = "what it is to be made from is gone: name another source"
	case errors.Is(f.err, fault.Exists):
		r.Next = "delete the volume of that name first, or choose another name"
	case passing(f.err):
		r.Next = "it is tried again by itself"
	}
	return r
}

// explain is what holds up one that has a record.
func (s *Server) explain(ctx context.Context, k kept) (volumeapi.Pending, error) {
	r := k.record
	p := volumeapi.Pending{
		Name: r.Name, Driver: r.Driver, Cluster: k.site.Entry.ID, Kind: r.Kind, State: string(r.State), Claim: claimOf(r),
		Reasons: []volumeapi.Reason{},
	}
	add := func(what, next string) { p.Reasons = append(p.Reasons, volumeapi.Reason{What: what, Next: next}) }
	lease, err := k.store.Lease(ctx, k.key)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return p, err
	}
	full, err := s.space(ctx, k.site, r)
	if err != nil {
		return p, err
	}
	p.Reasons = append(p.Reasons, full...)
	if r.State != record.Ready {
		s.unfinished(ctx, k, lease, add)
		return p, nil
	}
	s.usable(ctx, k, add)
	return p, nil
}

// unfinished explains one that is being made or deleted.
func (s *Server) unfinished(ctx context.Context, k kept, lease ceph.LeaseState, add func(what, next string)) {
	r := k.record
	what, _ := s.work(ctx, k)
	if lease.Held {
		add(fmt.Sprintf("it is %s, by %s", what.What, lease.Holder), "wait: it goes on by itself, also if that controller dies")
		return
	}
	text := fmt.Sprintf("it is %s, and nobody works on it since %s", what.What, lease.Changed.UTC().Format(time.RFC3339))
	next := "the provisioner asks again by itself, within minutes"
	if s.Now().Sub(lease.Changed) >= settled {
		next = "see that the provisioner runs; if nobody wants it any more: `holdfast volume orphans --delete`"
	}
	add(text, next)
	for _, f := range s.refused.all() {
		if f.kind == r.Kind && f.name == r.Name {
			reason := s.refusalReason(f)
			add(reason.What, reason.Next)
		}
	}
}

// usable explains one that is there.
func (s *Server) usable(ctx context.Context, k kept, add func(what, next string)) {
	r := k.record
	if r.Kind == record.KindSnapshot {
		add("the snapshot is there and can be restored", "")
		return
	}
	if c, err := s.condition(ctx, k.site, r); err != nil {
		add("whether it is well is not known: "+err.Error(), unreachable(err))
	} else if c.GetAbnormal() {
		add(c.GetMessage(), "look at it with `rbd info` or `ceph fs subvolume info`; restore what is lost from a backup")
	}
	for _, n := range slices.Sorted(maps.Keys(r.Published)) {
		p := r.Published[n]
		next := ""
		if strings.HasPrefix(p.Mode, "SINGLE_NODE") {
			next = "another node can have it when that one has let go of it: delete the pod there, or, if the node is dead, taint it with node.kubernetes.io/out-of-service"
		}
		add(fmt.Sprintf("node %s has it, as %s, since %s", n, p.Mode, p.Since.UTC().Format(time.RFC3339)), next)
	}
	if fenced := r.Fenced(); fenced != "" {
		add(fenced, "other nodes can have it; the fence ends by itself when the node is back and has let go")
	}
	if r.Flatten {
		add("it is being given a copy of its own in the background; it can be used meanwhile", "")
	}
	if len(r.Published) == 0 {
		add("it is there, and no node has it", "if a pod waits for it: kubectl describe pod, and the log of the node service where the pod is to run")
	}
}

// space tells of the volume's pools that are full, or nearly.
func (s *Server) space(ctx context.Context, site clustermap.Site, r *record.Record) ([]volumeapi.Reason, error) {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return nil, err
	}
	names := []string{r.Settings()["pool"], r.Settings()["dataPool"]}
	if r.Driver == storage.CephFS {
		filesystems, err := site.Cluster.Filesystems(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range filesystems {
			if f.ID == r.PoolID && names[0] == "" && len(f.DataPools) > 0 {
				names = append(names, f.DataPools[0], f.MetadataPool)
			}
		}
	}
	var reasons []volumeapi.Reason
	for _, p := range pools {
		if !slices.Contains(names, p.Name) && (r.Driver != storage.RBD || p.ID != r.PoolID) {
			continue
		}
		used := int64(0)
		if total := p.Stored + p.MaxAvail; total > 0 {
			used = int64(p.Stored) * 100 / int64(total)
		}
		switch {
		case p.Full:
			reasons = append(reasons, volumeapi.Reason{What: fmt.Sprintf("pool %q is full: nothing can be written", p.Name), Next: "add OSDs, or delete volumes: deleting works in a full pool"})
		case used >= nearFull:
			reasons = append(reasons, volumeapi.Reason{What: fmt.Sprintf("pool %q is nearly full: %d %%", p.Name, used), Next: "add OSDs or delete volumes before it is full"})
		}
	}
	return reasons, nil
}
