package inside

import (
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// section is a part of LVM's metadata: names of int64, string, []any and sections (lvm2, lib/format_text/layout.h and
// libdm/libdm-config.c).
type section map[string]any

// maxNesting is how deep sections may lie within each other; LVM has four levels.
const maxNesting = 8

// parseLVM reads the text of a volume group.
func parseLVM(text string) (section, error) {
	p := &lvmText{rest: text}
	s, err := p.section(0)
	if err == nil && p.next() != "" {
		err = p.bad("a closing brace too many")
	}
	return s, err
}

// lvmText is what is left to read.
type lvmText struct{ rest string }

func (p *lvmText) bad(what string) error {
	return fault.New(fault.Invalid, "LVM's metadata: %s before %.40q", what, p.rest)
}

// next returns the next word, text in quotes or sign; "" at the end.
func (p *lvmText) next() string {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\r\n\x00")
		if !strings.HasPrefix(p.rest, "#") {
			break
		}
		_, p.rest, _ = strings.Cut(p.rest, "\n")
	}
	if p.rest == "" {
		return ""
	}
	n := 1
	switch c := p.rest[0]; {
	case strings.IndexByte("{}[]=,", c) >= 0:
	case c == '"':
		for n < len(p.rest) && p.rest[n] != '"' {
			if p.rest[n] == '\\' {
				n++
			}
			n++
		}
		n = min(n+1, len(p.rest))
	default:
		if n = strings.IndexAny(p.rest, " \t\r\n{}[]=,#\x00"); n < 0 {
			n = len(p.rest)
		}
	}
	word := p.rest[:n]
	p.rest = p.rest[n:]
	return word
}

// section reads up to the brace that ends it, or to the end of the text.
func (p *lvmText) section(depth int) (section, error) {
	if depth > maxNesting {
		return nil, p.bad("too many sections within each other")
	}
	s := section{}
	for {
		name := p.next()
		switch {
		case name == "" && depth == 0, name == "}" && depth > 0:
			return s, nil
		case name == "" || strings.ContainsAny(name[:1], "{}[]=,\""):
			return nil, p.bad("no name")
		}
		var err error
		switch p.next() {
		case "{":
			s[name], err = p.section(depth + 1)
		case "=":
			s[name], err = p.value()
		default:
			err = p.bad("neither { nor =")
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *lvmText) value() (any, error) {
	word := p.next()
	if word != "[" {
		return p.scalar(word)
	}
	var list []any
	for {
		switch word = p.next(); word {
		case "]":
			return list, nil
		case ",":
			continue
		}
		v, err := p.scalar(word)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

func (p *lvmText) scalar(word string) (any, error) {
	if len(word) >= 2 && word[0] == '"' && word[len(word)-1] == '"' {
		return word[1 : len(word)-1], nil
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		if f, floatErr := strconv.ParseFloat(word, 64); floatErr == nil {
			return f, nil
		}
		return nil, p.bad("no value")
	}
	return n, nil
}

// number, text, list and sub read an entry; false: it is not there, or of another kind.
func (s section) number(name string) (int64, bool) {
	n, ok := s[name].(int64)
	return n, ok
}

func (s section) text(name string) string {
	text, _ := s[name].(string)
	return text
}

func (s section) list(name string) []any {
	list, _ := s[name].([]any)
	return list
}

func (s section) sub(name string) section {
	sub, _ := s[name].(section)
	return sub
}
