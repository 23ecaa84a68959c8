package cli

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// steps plays a bring-up in which time passes while a step runs.
func steps(p *progress) {
	p.event(localapi.Event{Step: "keys", State: localapi.EventStart})
	p.event(localapi.Event{Step: "keys", State: localapi.EventSkip})
	p.event(localapi.Event{Step: "monitors", State: localapi.EventStart})
	time.Sleep(600 * time.Millisecond)
	p.event(localapi.Event{State: localapi.EventNote, Text: "slow"})
	p.event(localapi.Event{Step: "monitors", State: localapi.EventDone, Took: 0.6})
	p.event(localapi.Event{Step: "stop osd.0", State: localapi.EventStart})
	p.event(localapi.Event{Step: "stop osd.1", State: localapi.EventStart})
	p.close()
}

const steady = "  keys             there\n  note: slow\n  monitors         done    0.6 s\n"

func TestProgressWithoutATerminalIsPlainLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		steps(startProgress(&out, 0))
		if out.String() != steady {
			t.Errorf("got %q", out.String())
		}
	})
}

func TestProgressOnATerminalShowsTheRunningStepInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		steps(startProgress(&out, 80))
		text := out.String()
		for _, want := range []string{
			"\r  keys             ...     0.0 s", "\r  monitors         ...     0.0 s", "\r  monitors         ...     0.2 s",
			"\r  monitors         ...     0.5 s", "stop osd.0       ...     0.0 s  (and 1 more)",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("escape sequences: %q", text)
		}
		if got := screen(text); got != steady {
			t.Errorf("left on the screen:\n%s", got)
		}
	})
}

func TestProgressFitsANarrowTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := startProgress(&out, 12)
		p.event(localapi.Event{Step: "file system", State: localapi.EventStart})
		p.close()
		for piece := range strings.FieldsFuncSeq(out.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
			if len(piece) > 11 {
				t.Errorf("%q is too wide", piece)
			}
		}
	})
}

// screen is what a terminal shows in the end, without the blanks at the ends of lines.
func screen(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		var cells []rune
		for _, overwrite := range strings.Split(line, "\r") {
			runes := []rune(overwrite)
			if len(runes) >= len(cells) {
				cells = runes
			} else {
				copy(cells, runes)
			}
		}
		lines[i] = strings.TrimRight(string(cells), " ")
	}
	return strings.Join(lines, "\n")
}
