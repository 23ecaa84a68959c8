// Package parameter validates StorageClass parameters: what each is called, what its
// value may be, and a message that names parameter, value and what is allowed. Pure.
package parameter

import (
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Rule validates one parameter's value. Want says what is allowed, for people.
type Rule struct {
	Want string
	OK   func(value string) bool
}

// Rules are a driver's parameters by name.
type Rules map[string]Rule

// Any accepts every value that is not empty.
func Any(want string) Rule {
	return Rule{Want: want, OK: func(v string) bool { return strings.TrimSpace(v) != "" }}
}

// OneOf accepts the given values.
func OneOf(values ...string) Rule {
	return Rule{Want: "one of " + strings.Join(values, ", "), OK: func(v string) bool { return slices.Contains(values, v) }}
}

// Check reports the first parameter (in the order of names) that is unknown or has a
// value that is not allowed, as fault.Invalid.
func (r Rules) Check(parameters map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		rule, known := r[name]
		if !known {
			return fault.New(fault.Invalid, "parameter %q is not known; known are %s", name, strings.Join(slices.Sorted(maps.Keys(r)), ", "))
		}
		if !rule.OK(parameters[name]) {
			return Refuse(name, parameters[name], rule.Want)
		}
	}
	return nil
}

// Refuse is the error for a value that is not allowed.
func Refuse(name, value, want string) error {
	return fault.New(fault.Invalid, "parameter %q: value %q: want %s", name, value, want)
}
