package crush

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// jsonMap is what `crushtool --dump` and `ceph osd crush dump` print. Weights of items
// are 16.16 numbers there; those of choose_args are decimal and rounded.
type jsonMap struct {
	Devices []struct {
		ID          ItemID
		Name, Class string
	}
	Types []struct {
		ID   int `json:"type_id"`
		Name string
	}
	Buckets []struct {
		ID        ItemID
		Name      string
		Type      int `json:"type_id"`
		Weight    Weight
		Algorithm string `json:"alg"`
		Hash      string
		Items     []struct {
			ID     ItemID
			Weight Weight
		}
	}
	Rules      []jsonRule
	Tunables   map[string]any
	ChooseArgs map[string][]struct {
		Bucket    ItemID      `json:"bucket_id"`
		WeightSet [][]float32 `json:"weight_set"`
		IDs       []ItemID
	} `json:"choose_args"`
}

type jsonRule struct {
	ID      int    `json:"rule_id"`
	Name    string `json:"rule_name"`
	Ruleset *uint8
	Type    uint8
	MinSize uint8 `json:"min_size"`
	MaxSize uint8 `json:"max_size"`
	Steps   []struct {
		Op   string
		Item int32
		Num  int32
		Type string
		// Steps that the dump has no name for are told by numbers.
		Opcode     *Op
		Arg1, Arg2 int32
	}
}

// ParseJSON reads a map in JSON. Errors name the field.
func ParseJSON(data []byte) (*Map, error) {
	var j jsonMap
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fault.New(fault.Invalid, "the JSON of a CRUSH map: %w", err)
	}
	if len(j.Types) == 0 {
		return nil, fault.New(fault.Invalid, "types: a CRUSH map in JSON has them (`crushtool --dump`, `ceph osd crush dump`)")
	}
	m := &Map{Tunables: Legacy()}
	for name, value := range j.Tunables {
		if n, ok := value.(float64); ok && n >= 0 && n <= 1<<31 {
			m.Tunables.set(name, int64(n)) // others are remarks
		}
	}
	for _, d := range j.Devices {
		m.Devices = append(m.Devices, Device{ID: d.ID, Name: d.Name, Class: d.Class})
		if d.Class != "" {
			m.addClass(d.Class)
		}
	}
	for _, t := range j.Types {
		m.Types = append(m.Types, Type{ID: t.ID, Name: t.Name})
	}
	if err := j.buckets(m); err != nil {
		return nil, err
	}
	for i, r := range j.Rules {
		if err := r.add(m); err != nil {
			return nil, fault.New(fault.Invalid, "rules[%d]: %w", i, err)
		}
	}
	if err := j.chooseArgs(m); err != nil {
		return nil, err
	}
	sortNames(m)
	return m, m.Validate()
}

func (j *jsonMap) buckets(m *Map) error {
	ids := map[string]ItemID{}
	for i, from := range j.Buckets {
		b := &Bucket{ID: from.ID, Name: from.Name, Type: from.Type, Weight: from.Weight}
		var ok bool
		if b.Algorithm, ok = parseAlgorithm(from.Algorithm); !ok || from.Hash != "rjenkins1" {
			return fault.New(fault.Invalid, "buckets[%d] (%s): alg %q or hash %q is not known", i, from.Name, from.Algorithm, from.Hash)
		}
		for _, item := range from.Items {
			b.Items, b.Weights = append(b.Items, item.ID), append(b.Weights, item.Weight)
		}
		if err := m.addBucket(b); err != nil {
			return fault.New(fault.Invalid, "buckets[%d]: %w", i, err)
		}
		ids[b.Name] = b.ID
	}
	for _, b := range m.Buckets {
		if b == nil {
			continue
		}
		name, class, _ := strings.Cut(b.Name, "~")
		if original := m.Bucket(ids[name]); class != "" && original != nil {
			b.ShadowOf, b.Class = original.ID, class
			original.Shadows = append(original.Shadows, Shadow{Class: class, ID: b.ID})
		}
	}
	return nil
}

func (r jsonRule) add(m *Map) error {
	rule := &Rule{ID: r.ID, Name: r.Name, Type: r.Type, Ruleset: uint8(r.ID), MinSize: r.MinSize, MaxSize: r.MaxSize}
	if r.Ruleset != nil {
		rule.Ruleset = *r.Ruleset
	}
	for i, s := range r.Steps {
		if s.Opcode != nil {
			rule.Steps = append(rule.Steps, Step{Op: *s.Opcode, Arg1: s.Arg1, Arg2: s.Arg2})
			continue
		}
		step := Step{Arg1: s.Num}
		if op, ok := setOps[s.Op]; ok {
			step.Op = op
			rule.Steps = append(rule.Steps, step)
			continue
		}
		switch s.Op {
		case "noop":
		case "take":
			step.Op, step.Arg1 = OpTake, s.Item
		case "emit":
			step.Op = OpEmit
		case "choose_firstn":
			step.Op = OpChooseFirstN
		case "choose_indep":
			step.Op = OpChooseIndep
		case "chooseleaf_firstn":
			step.Op = OpChooseleafFirstN
		case "chooseleaf_indep":
			step.Op = OpChooseleafIndep
		default:
			return fault.New(fault.Invalid, "steps[%d]: the step %q is not known", i, s.Op)
		}
		if strings.HasPrefix(s.Op, "choose") {
			kind, ok := m.typeID(s.Type)
			if !ok {
				return fault.New(fault.Invalid, "steps[%d]: the type %q is not known", i, s.Type)
			}
			step.Arg2 = int32(kind)
		}
		rule.Steps = append(rule.Steps, step)
	}
	return m.addRule(rule)
}

func (m *Map) typeID(name string) (int, bool) {
	for _, t := range m.Types {
		if t.Name == name {
			return t.ID, true
		}
	}
	return 0, false
}

func (j *jsonMap) chooseArgs(m *Map) error {
	for name, args := range j.ChooseArgs {
		index, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return fault.New(fault.Invalid, "choose_args: %q is no pool's id", name)
		}
		set := ChooseArgs{Index: index}
		for _, from := range args {
			arg := ChooseArg{Bucket: from.Bucket, IDs: from.IDs}
			for _, weights := range from.WeightSet {
				row := make([]Weight, len(weights))
				for i, w := range weights {
					if w < 0 || w >= 65536 {
						return fault.New(fault.Invalid, "choose_args %s: the weight %g of bucket %d", name, w, from.Bucket)
					}
					row[i] = Weight(w * 0x10000)
				}
				arg.WeightSet = append(arg.WeightSet, row)
			}
			set.Args = append(set.Args, arg)
		}
		m.ChooseArgs = append(m.ChooseArgs, set)
	}
	return nil
}
