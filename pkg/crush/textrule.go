package crush

import "math"

// rule reads `rule NAME { ... }`; the name may be missing.
func (r *textReader) rule() error {
	if err := r.makeShadows(); err != nil {
		return err
	}
	rule := &Rule{ID: -1}
	var err error
	if r.peek() != "{" {
		if rule.Name, err = r.name("name of a rule"); err != nil {
			return err
		}
	}
	if err := r.expect("{"); err != nil {
		return err
	}
	for !r.skip("}") {
		if err := r.ruleLine(rule); err != nil {
			return err
		}
	}
	if rule.ID < 0 {
		return r.errorf("the rule %s has no id", rule.Name)
	}
	rule.Ruleset = uint8(rule.ID)
	if err := r.m.addRule(rule); err != nil {
		return r.errorf("%w", err)
	}
	return nil
}

func (r *textReader) ruleLine(rule *Rule) error {
	word, err := r.next("'}' of rule " + rule.Name)
	if err != nil {
		return err
	}
	switch word {
	case "id", "ruleset":
		id, err := r.integer("id of a rule", 0, maxRules-1)
		rule.ID = int(id)
		return err
	case "type":
		return r.ruleType(rule)
	case "min_size":
		n, err := r.integer("size", 0, math.MaxUint8)
		rule.MinSize = uint8(n)
		return err
	case "max_size":
		n, err := r.integer("size", 0, math.MaxUint8)
		rule.MaxSize = uint8(n)
		return err
	case "step":
		step, err := r.step()
		rule.Steps = append(rule.Steps, step)
		return err
	default:
		return r.errorf("%q in rule %s: id, type, min_size, max_size, step or } can stand here", word, rule.Name)
	}
}

func (r *textReader) ruleType(rule *Rule) error {
	switch {
	case r.skip("replicated"):
		rule.Type = Replicated
	case r.skip("erasure"):
		rule.Type = Erasure
	default:
		n, err := r.integer("type of a rule (replicated, erasure)", 0, math.MaxUint8)
		rule.Type = uint8(n)
		return err
	}
	return nil
}

// setOps are the steps that change how the steps after them search.
var setOps = map[string]Op{
	"set_choose_tries":                OpSetChooseTries,
	"set_chooseleaf_tries":            OpSetChooseleafTries,
	"set_choose_local_tries":          OpSetChooseLocalTries,
	"set_choose_local_fallback_tries": OpSetChooseLocalFallbackTries,
	"set_chooseleaf_vary_r":           OpSetChooseleafVaryR,
	"set_chooseleaf_stable":           OpSetChooseleafStable,
}

func (r *textReader) step() (Step, error) {
	word, err := r.name("step")
	if err != nil {
		return Step{}, err
	}
	if op, ok := setOps[word]; ok {
		n, err := r.integer("value of "+word, 0, math.MaxInt32)
		return Step{Op: op, Arg1: int32(n)}, err
	}
	switch word {
	case "noop":
		return Step{}, nil
	case "emit":
		return Step{Op: OpEmit}, nil
	case "take":
		return r.takeStep()
	case "choose":
		return r.chooseStep(OpChooseFirstN, OpChooseIndep)
	case "chooseleaf":
		return r.chooseStep(OpChooseleafFirstN, OpChooseleafIndep)
	default:
		return Step{}, r.errorf("the step %s is not known", word)
	}
}

func (r *textReader) takeStep() (Step, error) {
	id, err := r.item()
	if err != nil || !r.skip("class") {
		return Step{Op: OpTake, Arg1: int32(id)}, err
	}
	class, err := r.name("class")
	if err != nil {
		return Step{}, err
	}
	if b := r.m.Bucket(id); b != nil {
		for _, s := range b.Shadows {
			if s.Class == class {
				return Step{Op: OpTake, Arg1: int32(s.ID)}, nil
			}
		}
	}
	return Step{}, r.errorf("nothing below item %d has the class %s", id, class)
}

func (r *textReader) chooseStep(firstN, indep Op) (Step, error) {
	step := Step{Op: indep}
	if r.skip("firstn") {
		step.Op = firstN
	} else if err := r.expect("indep"); err != nil {
		return step, err
	}
	n, err := r.integer("number to choose", math.MinInt16, math.MaxInt16)
	if err != nil {
		return step, err
	}
	if err := r.expect("type"); err != nil {
		return step, err
	}
	kind, err := r.kind()
	step.Arg1, step.Arg2 = int32(n), int32(kind)
	return step, err
}

// chooseArgs reads `choose_args INDEX { { bucket_id N weight_set [...] ids [...] } ... }`.
func (r *textReader) chooseArgs() error {
	if err := r.makeShadows(); err != nil {
		return err
	}
	index, err := r.integer("index of choose_args", math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	set := ChooseArgs{Index: index}
	for _, other := range r.m.ChooseArgs {
		if other.Index == index {
			return r.errorf("choose_args %d are there twice", index)
		}
	}
	if err := r.expect("{"); err != nil {
		return err
	}
	for !r.skip("}") {
		arg, err := r.chooseArg()
		if err != nil {
			return err
		}
		if err := r.m.validateChooseArg(arg); err != nil {
			return r.errorf("%w", err)
		}
		set.Args = append(set.Args, arg)
	}
	r.m.ChooseArgs = append(r.m.ChooseArgs, set)
	return nil
}

func (r *textReader) chooseArg() (ChooseArg, error) {
	var arg ChooseArg
	if err := r.expect("{"); err != nil {
		return arg, err
	}
	for !r.skip("}") {
		word, err := r.next("'}' of choose_args")
		if err != nil {
			return arg, err
		}
		switch word {
		case "bucket_id":
			var n int64
			n, err = r.integer("id of a bucket", -maxBuckets, -1)
			arg.Bucket = ItemID(n)
		case "weight_set":
			err = r.weightSet(&arg)
		case "ids":
			err = r.chooseIDs(&arg)
		default:
			err = r.errorf("%q in choose_args: bucket_id, weight_set, ids or } can stand here", word)
		}
		if err != nil {
			return arg, err
		}
	}
	return arg, nil
}

func (r *textReader) weightSet(arg *ChooseArg) error {
	if err := r.expect("["); err != nil {
		return err
	}
	for !r.skip("]") {
		if err := r.expect("["); err != nil {
			return err
		}
		weights := []Weight{}
		for !r.skip("]") {
			w, err := r.weight(math.MaxUint32)
			if err != nil {
				return err
			}
			weights = append(weights, w)
		}
		arg.WeightSet = append(arg.WeightSet, weights)
	}
	return nil
}

func (r *textReader) chooseIDs(arg *ChooseArg) error {
	if err := r.expect("["); err != nil {
		return err
	}
	for !r.skip("]") {
		n, err := r.integer("id", math.MinInt32, math.MaxInt32)
		if err != nil {
			return err
		}
		arg.IDs = append(arg.IDs, ItemID(n))
	}
	return nil
}
