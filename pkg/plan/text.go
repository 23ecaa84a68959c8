package plan

import (
	"fmt"
	"strings"
	"time"
)

// Text is the plan for a person: "+" for disks that come, "-" for those that go, "~" for steps.
func (p Plan) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan %s: %s: %s\n", p.ID, p.Subject, p.What)
	for _, d := range p.Disks {
		mark := map[Use]string{Take: "+", Keep: " ", Release: "-"}[d.Use]
		fmt.Fprintf(&b, "%s disk %s (%s): %s\n", mark, d.ID, d.Size.Decimal(), d.Use)
	}
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "~ %d/%d %s: %s\n", i+1, len(p.Steps), s.Kind, s.What)
		b.WriteString(s.details())
	}
	for _, note := range p.Notes {
		fmt.Fprintf(&b, "! %s\n", note)
	}
	fmt.Fprintf(&b, "capacity %s -> %s", p.Before, p.After)
	if p.Redundancy >= 0 {
		fmt.Fprintf(&b, "; %s over %s, about %s; survives the loss of %s meanwhile",
			count(p.Passes, "pass", "passes"), p.Sync, Duration(p.Forecast), count(p.Redundancy, "disk", "disks"))
	}
	b.WriteString("\n")
	fmt.Fprintf(&b, "%d to take, %d to keep, %d to release\n", len(p.Of(Take)), len(p.Of(Keep)), len(p.Of(Release)))
	return b.String()
}

// details are what a step costs, where it costs something.
func (s Step) details() string {
	var b strings.Builder
	if s.Passes > 0 {
		fmt.Fprintf(&b, "      %s in %s, about %s; survives the loss of %s meanwhile",
			s.Sync, count(s.Passes, "pass", "passes"), Duration(s.Forecast), count(s.Redundancy, "disk", "disks"))
		if s.WriteHole {
			b.WriteString("; no protection against a power cut together with the loss of a disk")
		}
		b.WriteString("\n")
	}
	if s.Before != s.After {
		fmt.Fprintf(&b, "      capacity %s -> %s\n", s.Before, s.After)
	}
	if len(s.Requires) > 0 {
		fmt.Fprintf(&b, "      requires %s\n", strings.Join(s.Requires, "; "))
	}
	return b.String()
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// Duration prints seconds as a person counts them: "40s", "7m", "7h25m".
func Duration(seconds int64) string {
	switch d := time.Duration(seconds) * time.Second; {
	case seconds < 60:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 3600:
		return fmt.Sprintf("%dm", int(d.Minutes()+0.5))
	default:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}
