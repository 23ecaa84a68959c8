package crush

import (
	"fmt"
	"slices"
	"strings"
)

// textWriter writes the language that ParseText reads, line by line as `crushtool -d` does
// (CrushCompiler::decompile).
type textWriter struct {
	strings.Builder
	m    *Map
	done map[ItemID]bool
}

func (w *textWriter) printf(format string, args ...any) { fmt.Fprintf(w, format, args...) }

// Text writes a map as text. Weights are cut to three decimals, as Ceph's are: a map that
// comes back from text may map differently.
func (m *Map) Text() (string, error) {
	if err := m.Validate(); err != nil {
		return "", err
	}
	w := &textWriter{m: m, done: map[ItemID]bool{}}
	w.printf("# begin crush map\n")
	w.tunables()
	w.printf("\n# devices\n")
	for _, d := range m.Devices {
		w.printf("device %d %s", d.ID, d.Name)
		if d.Class != "" {
			w.printf(" class %s", d.Class)
		}
		w.printf("\n")
	}
	w.printf("\n# types\n")
	for _, t := range m.Types {
		w.printf("type %d %s\n", t.ID, t.Name)
	}
	w.printf("\n# buckets\n")
	for _, b := range m.Buckets {
		if b != nil {
			w.bucket(b)
		}
	}
	w.printf("\n# rules\n")
	for _, r := range m.Rules {
		if r != nil {
			w.rule(r)
		}
	}
	w.chooseArgs()
	w.printf("\n# end crush map\n")
	return w.String(), nil
}

// tunables that are as in a map that says nothing are left out.
func (w *textWriter) tunables() {
	was, is := Legacy(), w.m.Tunables
	for _, t := range []struct {
		name    string
		was, is uint32
	}{
		{"choose_local_tries", was.ChooseLocalTries, is.ChooseLocalTries},
		{"choose_local_fallback_tries", was.ChooseLocalFallbackTries, is.ChooseLocalFallbackTries},
		{"choose_total_tries", was.ChooseTotalTries, is.ChooseTotalTries},
		{"chooseleaf_descend_once", was.ChooseleafDescendOnce, is.ChooseleafDescendOnce},
		{"chooseleaf_vary_r", uint32(was.ChooseleafVaryR), uint32(is.ChooseleafVaryR)},
		{"chooseleaf_stable", uint32(was.ChooseleafStable), uint32(is.ChooseleafStable)},
		{"straw_calc_version", uint32(was.StrawCalcVersion), uint32(is.StrawCalcVersion)},
		{"allowed_bucket_algs", was.AllowedBucketAlgs, is.AllowedBucketAlgs},
	} {
		if t.was != t.is {
			w.printf("tunable %s %d\n", t.name, t.is)
		}
	}
}

// name of an item; those without one are called by number, as Ceph does.
func (w *textWriter) name(id ItemID) string {
	if b := w.m.Bucket(id); b != nil && b.Name != "" {
		return b.Name
	}
	i := slices.IndexFunc(w.m.Devices, func(d Device) bool { return d.ID == id })
	switch {
	case i >= 0:
		return w.m.Devices[i].Name
	case id >= 0:
		return fmt.Sprintf("device%d", id)
	default:
		return fmt.Sprintf("bucket%d", -1-id)
	}
}

func (w *textWriter) typeName(id int) string {
	for _, t := range w.m.Types {
		if t.ID == id {
			return t.Name
		}
	}
	if id == 0 {
		return "device"
	}
	return fmt.Sprintf("type%d", id)
}

// decimal writes a weight with three decimals.
func decimal(w Weight) string { return fmt.Sprintf("%.3f", float32(w)/float32(One)) }

// bucket writes those below it first. Copies for device classes are a line of their
// originals.
func (w *textWriter) bucket(b *Bucket) {
	if w.done[b.ID] || b.Class != "" {
		return
	}
	w.done[b.ID] = true
	for _, item := range b.Items {
		if child := w.m.Bucket(item); child != nil {
			w.bucket(child)
		}
	}
	w.printf("%s %s {\n\tid %d\t\t# do not change unnecessarily\n", w.typeName(b.Type), w.name(b.ID), b.ID)
	for _, s := range b.Shadows {
		w.printf("\tid %d class %s\t\t# do not change unnecessarily\n", s.ID, s.Class)
	}
	w.printf("\t# weight %s\n\talg %s", decimal(b.Weight), b.Algorithm)
	switch b.Algorithm {
	case Uniform:
		w.printf("\t# do not change bucket size (%d) unnecessarily", len(b.Items))
	case List:
		w.printf("\t# add new items at the end; do not change order unnecessarily")
	case Tree:
		w.printf("\t# do not change pos for existing items unnecessarily")
	}
	w.printf("\n\thash %d\t# rjenkins1\n", b.Hash)
	for i, item := range b.Items {
		w.printf("\titem %s weight %s", w.name(item), decimal(b.Weights[i]))
		if b.Algorithm == Uniform || b.Algorithm == Tree {
			w.printf(" pos %d", i)
		}
		w.printf("\n")
	}
	w.printf("}\n")
}

func (w *textWriter) rule(r *Rule) {
	w.printf("rule")
	if r.Name != "" {
		w.printf(" %s", r.Name)
	}
	w.printf(" {\n\tid %d\n", r.ID)
	if int(r.Ruleset) != r.ID {
		w.printf("\t# WARNING: ruleset %d != id %d; this will not recompile to the same map\n", r.Ruleset, r.ID)
	}
	switch r.Type {
	case Replicated:
		w.printf("\ttype replicated\n")
	case Erasure:
		w.printf("\ttype erasure\n")
	default:
		w.printf("\ttype %d\n", r.Type)
	}
	w.printf("\tmin_size %d\n\tmax_size %d\n", r.MinSize, r.MaxSize)
	for _, s := range r.Steps {
		w.printf("\tstep %s\n", w.step(s))
	}
	w.printf("}\n")
}

func (w *textWriter) step(s Step) string {
	for name, op := range setOps {
		if op == s.Op {
			return fmt.Sprintf("%s %d", name, s.Arg1)
		}
	}
	choose := func(verb, mode string) string {
		return fmt.Sprintf("%s %s %d type %s", verb, mode, s.Arg1, w.typeName(int(s.Arg2)))
	}
	switch s.Op {
	case OpNoop:
		return "noop"
	case OpTake:
		if b := w.m.Bucket(ItemID(s.Arg1)); b != nil && b.Class != "" {
			return fmt.Sprintf("take %s class %s", w.name(b.ShadowOf), b.Class)
		}
		return "take " + w.name(ItemID(s.Arg1))
	case OpEmit:
		return "emit"
	case OpChooseFirstN:
		return choose("choose", "firstn")
	case OpChooseIndep:
		return choose("choose", "indep")
	case OpChooseleafFirstN:
		return choose("chooseleaf", "firstn")
	case OpChooseleafIndep:
		return choose("chooseleaf", "indep")
	default:
		return fmt.Sprintf("%d %d %d", s.Op, s.Arg1, s.Arg2)
	}
}

func (w *textWriter) chooseArgs() {
	if len(w.m.ChooseArgs) > 0 {
		w.printf("\n# choose_args\n")
	}
	for _, set := range w.m.ChooseArgs {
		w.printf("choose_args %d {\n", set.Index)
		for _, arg := range set.Args {
			if len(arg.WeightSet)+len(arg.IDs) > 0 {
				w.chooseArg(arg)
			}
		}
		w.printf("}\n")
	}
}

func (w *textWriter) chooseArg(arg ChooseArg) {
	w.printf("  {\n    bucket_id %d\n", arg.Bucket)
	if len(arg.WeightSet) > 0 {
		w.printf("    weight_set [\n")
		for _, weights := range arg.WeightSet {
			w.printf("      [ ")
			for _, weight := range weights {
				w.printf("%s ", decimal(weight))
			}
			w.printf("]\n")
		}
		w.printf("    ]\n")
	}
	if len(arg.IDs) > 0 {
		w.printf("    ids [ ")
		for _, id := range arg.IDs {
			w.printf("%d ", id)
		}
		w.printf("]\n")
	}
	w.printf("  }\n")
}
