package fsm

import (
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Token is what is remembered of a join token: whom it lets in, until when, and who has come with it. Its secret is not known here.
type Token struct {
	Role    string    `json:"role"`
	Name    string    `json:"name"`
	Expires time.Time `json:"expires"`
	// Key is the hash of the public key that came with it, "" as long as nobody has.
	Key string `json:"key,omitempty"`
}

// Admit remembers a token by the hash of its secret.
type Admit struct {
	Hash  string `json:"hash"`
	Token Token  `json:"token"`
}

// Join uses a token for a public key, by its hash. The same key may come again: an answer may be lost.
type Join struct {
	Hash string `json:"hash"`
	Role string `json:"role"`
	Name string `json:"name"`
	Key  string `json:"key"`
}

// longestToken is how long a token may be good.
const longestToken = 7 * 24 * time.Hour

func (b *Admit) apply(s *State, c Command) (any, error) {
	t := b.Token
	if b.Hash == "" || t.Role == "" || t.Name == "" || t.Key != "" {
		return nil, fault.New(fault.Invalid, "a token without a role, a name or a secret, or with a key")
	}
	if !t.Expires.After(c.At) || t.Expires.After(c.At.Add(longestToken)) {
		return nil, fault.New(fault.Range, "a token is good for up to %s", longestToken)
	}
	for hash, old := range s.Tokens {
		if !old.Expires.After(c.At) {
			delete(s.Tokens, hash)
		}
	}
	if s.Tokens == nil {
		s.Tokens = map[string]Token{}
	}
	s.Tokens[b.Hash] = t
	s.note(c, t.Role+"/"+t.Name, "join token, good until %s", t.Expires.UTC().Format(time.RFC3339))
	return struct{}{}, nil
}

func (b *Join) apply(s *State, c Command) (any, error) {
	t, ok := s.Tokens[b.Hash]
	switch {
	case !ok || t.Role != b.Role || t.Name != b.Name:
		return nil, fault.New(fault.Denied, "the join token is not for %s/%s, or has expired: make a new one", b.Role, b.Name)
	case !t.Expires.After(c.At):
		return nil, fault.New(fault.Denied, "the join token expired at %s: make a new one", t.Expires.UTC().Format(time.RFC3339))
	case b.Key == "":
		return nil, fault.New(fault.Invalid, "somebody joins without a key")
	case t.Key != "" && t.Key != b.Key:
		return nil, fault.New(fault.Denied, "somebody has joined with this token already: make a new one")
	}
	if t.Key == "" {
		t.Key = b.Key
		s.Tokens[b.Hash] = t
		s.note(c, b.Role+"/"+b.Name, "joined with a token")
	}
	return struct{}{}, nil
}

func (*Admit) kind() Kind { return "admit" }
func (*Join) kind() Kind  { return "join" }
