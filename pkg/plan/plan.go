// Package plan holds what is to be done to disks and pools as data: a Plan is computed by a pure
// function from a state, read and approved by a person, and only then run by the executor.
//
// Invariant: a plan is immutable. Its ID is a hash of everything in it, its parent a hash of the state
// that it was computed from, so neither can change unnoticed.
//
// It must not import what plans or what executes; both import it.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ID names a plan: the first 16 hexadecimal digits of the SHA-256 of its content.
type ID string

// DiskID is what a disk is known by wherever it is plugged in: its WWN or serial number, never a device name.
type DiskID string

// Use is what a plan does with a disk.
type Use string

// The uses.
const (
	Take    Use = "take"    // it is free and becomes a part of the subject: what is on it is gone
	Keep    Use = "keep"    // it is a part and stays one
	Release Use = "release" // it was a part and is free afterwards
)

// Disk is a disk that a plan speaks of.
type Disk struct {
	ID   DiskID        `json:"id"`
	Size storage.Bytes `json:"size_bytes"`
	Use  Use           `json:"use"`
}

// Kind names what a step does; the executor's registry binds it to behaviour.
type Kind string

// Step is one thing to be done: checked before, verified after.
type Step struct {
	Kind Kind   `json:"kind"`
	What string `json:"what"` // in words
	// Executor is who does it: "node" for the machine that has the disks.
	Executor string   `json:"executor"`
	Disks    []DiskID `json:"disks,omitempty"`
	// Requires says in words what must hold before; Args say it to the executor.
	Requires []string `json:"requires,omitempty"`
	// Before and After are the subject's capacity in bytes.
	Before storage.Bytes `json:"capacity_before_bytes"`
	After  storage.Bytes `json:"capacity_after_bytes"`
	// Sync is what is copied, reshaped or first synced: the array's component size for each pass, in bytes.
	Sync   storage.Bytes `json:"sync_bytes"`
	Passes int           `json:"passes"`
	// Redundancy is how many disks may be lost meanwhile.
	Redundancy int `json:"redundancy_during"`
	// WriteHole: a power cut together with the loss of a disk can lose data meanwhile.
	WriteHole bool  `json:"write_hole,omitempty"`
	Forecast  int64 `json:"forecast_seconds"`
	// Args are the kind's own.
	Args json.RawMessage `json:"args"`
}

// Version is that of the encoding.
const Version = 1

// Plan is what is to be done, in order.
type Plan struct {
	Version int    `json:"version"`
	ID      ID     `json:"id"`
	Parent  string `json:"parent"`  // hash of the state that it was computed from
	Subject string `json:"subject"` // what it changes, such as "stack media"
	// Excludes are other subjects, plans for which must not be at work at the same time.
	Excludes []string `json:"excludes,omitempty"`
	What     string   `json:"what"`
	Disks    []Disk   `json:"disks"`
	Steps    []Step   `json:"steps"`
	// State is the subject's state afterwards, which the next plan is computed from.
	State      json.RawMessage `json:"state_after"`
	Before     storage.Bytes   `json:"capacity_before_bytes"`
	After      storage.Bytes   `json:"capacity_after_bytes"`
	Sync       storage.Bytes   `json:"sync_bytes"`
	Passes     int             `json:"passes"`
	Redundancy int             `json:"redundancy_during"`
	WriteHole  bool            `json:"write_hole,omitempty"`
	Forecast   int64           `json:"forecast_seconds"`
	Notes      []string        `json:"notes,omitempty"`
}

// Seal sums the steps up and gives the plan its ID. redundancy is what the subject survives before; -1 where others than the steps see to that.
func (p Plan) Seal(redundancy int) (Plan, error) {
	p.Version, p.Redundancy = Version, redundancy
	p.Steps = slices.Clone(p.Steps)
	for _, s := range p.Steps {
		p.Sync, p.Passes, p.Forecast = p.Sync+s.Sync, p.Passes+s.Passes, p.Forecast+s.Forecast
		p.Redundancy, p.WriteHole = min(p.Redundancy, s.Redundancy), p.WriteHole || s.WriteHole
	}
	id, err := p.hash()
	p.ID = id
	return p, err
}

// hash is the ID that the content asks for.
func (p Plan) hash() (ID, error) {
	p.ID = ""
	sum, err := Hash(p)
	if err != nil {
		return "", err
	}
	return ID(sum[:16]), nil
}

// Hash is the SHA-256 of a value's JSON, in hexadecimal digits: what a parent is named by.
func Hash(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("hash a plan's part: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Parse reads a plan and refuses one whose content is not what its ID says.
func Parse(data []byte) (Plan, error) {
	var p Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return Plan{}, fault.New(fault.Invalid, "read plan: %w", err)
	}
	if err := p.Check(); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// Check refuses a plan of another version, and one whose content is not what its ID says.
func (p Plan) Check() error {
	if p.Version != Version {
		return fault.New(fault.Unsupported, "plan of version %d: this program knows version %d", p.Version, Version)
	}
	want, err := p.hash()
	if err != nil {
		return fault.As(fault.Invalid, err)
	}
	if p.ID != want {
		return fault.New(fault.Invalid, "plan %q was changed after it was made: its content has the id %q", p.ID, want)
	}
	return nil
}

// Of lists the disks of a use, by their IDs in order.
func (p Plan) Of(use Use) []DiskID {
	var list []DiskID
	for _, d := range p.Disks {
		if d.Use == use {
			list = append(list, d.ID)
		}
	}
	slices.Sort(list)
	return list
}

// Token is what approval must say: the serials of all disks whose content is at stake, sorted and joined by
// commas; the plan's ID where there are none.
func (p Plan) Token() string {
	var list []string
	for _, id := range append(p.Of(Take), p.Of(Release)...) {
		list = append(list, string(id))
	}
	if len(list) == 0 {
		return string(p.ID)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
