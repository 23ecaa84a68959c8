package crush

import (
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// token is a word of a text map and the line it stands in.
type token struct {
	word string
	line int
}

// scanner hands out the words of a text map; comments run from # to the end of a line.
type scanner struct {
	lines []string
	line  int
	words []token
	taken token
}

func newScanner(data []byte) *scanner {
	return &scanner{lines: strings.Split(string(data), "\n")}
}

// fill reads lines until there is a word to hand out.
func (s *scanner) fill() bool {
	for len(s.words) == 0 {
		if s.line == len(s.lines) {
			return false
		}
		text, _, _ := strings.Cut(s.lines[s.line], "#")
		s.line++
		for _, c := range []string{"{", "}", "[", "]"} {
			if strings.Contains(text, c) {
				text = strings.ReplaceAll(text, c, " "+c+" ")
			}
		}
		for _, word := range strings.Fields(text) {
			s.words = append(s.words, token{word, s.line})
		}
	}
	return true
}

// peek returns the next word, or "" at the end.
func (s *scanner) peek() string {
	if !s.fill() {
		return ""
	}
	return s.words[0].word
}

func (s *scanner) next(what string) (string, error) {
	if !s.fill() {
		return "", fault.New(fault.Invalid, "line %d: the map ends where %s should be", len(s.lines), what)
	}
	s.taken, s.words = s.words[0], s.words[1:]
	return s.taken.word, nil
}

// errorf is an error at the word taken last.
func (s *scanner) errorf(format string, args ...any) error {
	return fault.New(fault.Invalid, "line %d: %w", s.taken.line, fault.New(fault.Invalid, format, args...))
}

// skip takes the next word if it is the one named.
func (s *scanner) skip(word string) bool {
	if s.peek() != word {
		return false
	}
	s.taken, s.words = s.words[0], s.words[1:]
	return true
}

func (s *scanner) expect(word string) error {
	got, err := s.next(word)
	if err == nil && got != word {
		err = s.errorf("%q where %q should be", got, word)
	}
	return err
}

func (s *scanner) name(what string) (string, error) {
	word, err := s.next(what)
	if err != nil {
		return "", err
	}
	for _, c := range word {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c) {
			return "", s.errorf("%q is no %s: names have letters, digits, '-', '_' and '.'", word, what)
		}
	}
	return word, nil
}

// integer reads a whole number from least to most.
func (s *scanner) integer(what string, least, most int64) (int64, error) {
	word, err := s.next(what)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil || n < least || n > most {
		return 0, s.errorf("%q is no %s: a whole number from %d to %d", word, what, least, most)
	}
	return n, nil
}

// weight reads a weight as Ceph's compiler does: a float of 32 bits, times 65536, cut off.
func (s *scanner) weight(most Weight) (Weight, error) {
	word, err := s.next("a weight")
	if err != nil {
		return 0, err
	}
	w, err := ParseWeight(word)
	if err != nil {
		return 0, s.errorf("%w", err)
	}
	if w > most {
		return 0, s.errorf("the weight %s is too large: at most %d.0 is possible here", word, most/One)
	}
	return w, nil
}

// ParseWeight reads a weight such as 1.5 with the precision that Ceph's tools do it.
func ParseWeight(text string) (Weight, error) {
	f, err := strconv.ParseFloat(text, 32)
	if err != nil || f < 0 || f >= 65536 || f != f {
		return 0, fault.New(fault.Invalid, "%q is no weight: a number from 0 to below 65536", text)
	}
	return Weight(float32(f) * 0x10000), nil
}
