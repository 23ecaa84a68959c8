package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// drawEvery is how often the time of the running step is drawn anew on a terminal.
const drawEvery = 250 * time.Millisecond

// progress shows steps to a person: a line each when it is done. On a terminal the step
// that runs is shown too, on the last line, in place. It uses no colours and no escape
// sequences, so NO_COLOR asks for nothing more. close ends it.
type progress struct {
	out   io.Writer
	width int // of the terminal in cells; 0: there is none

	mu      sync.Mutex
	running []runningStep
	drawn   int // cells of the last line that are in use

	stop chan struct{}
	done sync.WaitGroup
}

type runningStep struct {
	name  string
	since time.Time
}

func newProgress(out io.Writer) *progress {
	width := 0
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		width = 80
		if w, _, err := term.GetSize(int(file.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	return startProgress(out, width)
}

func startProgress(out io.Writer, width int) *progress {
	p := &progress{out: out, width: width, stop: make(chan struct{})}
	if width > 0 {
		p.done.Go(p.tick)
	}
	return p
}

func (p *progress) tick() {
	ticker := time.NewTicker(drawEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// close takes the running step off the terminal. Nothing may be shown afterwards.
func (p *progress) close() {
	close(p.stop)
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = nil
	p.draw()
}

func (p *progress) event(e localapi.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.State {
	case localapi.EventStart:
		p.running = append(p.running, runningStep{e.Step, time.Now()})
	case localapi.EventDone:
		p.line(e.Step, "  %-16s done  %5.1f s", e.Step, e.Took)
	case localapi.EventSkip:
		p.line(e.Step, "  %-16s there", e.Step)
	case localapi.EventNote:
		p.line("", "  note: %s", e.Text)
	case localapi.EventReady, localapi.EventFail:
		p.running = nil
	}
	p.draw()
}

// line prints what stays; it ends the step.
func (p *progress) line(step, format string, args ...any) {
	p.running = slices.DeleteFunc(p.running, func(r runningStep) bool { return r.name == step })
	p.erase()
	fmt.Fprintf(p.out, format+"\n", args...)
}

func (p *progress) erase() {
	if p.drawn > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.drawn))
		p.drawn = 0
	}
}

// draw puts the running step, the longest at it of several, in place of the last line.
func (p *progress) draw() {
	if p.width == 0 {
		return
	}
	if len(p.running) == 0 {
		p.erase()
		return
	}
	first, others := p.running[0], ""
	if n := len(p.running) - 1; n > 0 {
		others = fmt.Sprintf("  (and %d more)", n)
	}
	text := fmt.Sprintf("  %-16s ...   %5.1f s%s", first.name, time.Since(first.since).Seconds(), others)
	text = runewidth.Truncate(text, p.width-1, "") // a line that wraps could not be overwritten
	cells := runewidth.StringWidth(text)
	fmt.Fprintf(p.out, "\r%s%s", text, strings.Repeat(" ", max(0, p.drawn-cells)))
	p.drawn = max(cells, p.drawn)
}
