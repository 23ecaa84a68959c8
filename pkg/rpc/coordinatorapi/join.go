package coordinatorapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// JoinPath is where those who have a token and no certificate ask for one: JSON over HTTP on a connection of certs.Join.
const JoinPath = "/v1/join"

// JoinRequest asks for a certificate.
type JoinRequest struct {
	Role    string `json:"role"`
	Name    string `json:"name"`
	Secret  string `json:"secret"`
	Request []byte `json:"request"` // PKCS #10, DER
}

// JoinAnswer is the certificate, or why there is none.
type JoinAnswer struct {
	Certificate []byte `json:"certificate,omitempty"` // PEM
	CA          []byte `json:"ca,omitempty"`          // PEM, all that are trusted
	Leader      string `json:"leader,omitempty"`      // host:port of the member to ask instead
	Error       string `json:"error,omitempty"`
}

// Join gets the certificate of id for a token and writes it to a directory, as certs.Open reads it, with the coordinators' addresses, as
// Endpoints does. The private key is made there and goes nowhere; it may be interrupted at any point and called again. fault.Denied: the token
// is another's, or not good any more.
func Join(ctx context.Context, token certs.Token, id certs.Identity, dir string) error {
	if token.For != id {
		return fault.New(fault.Denied, "the join token is for %s, and this is %s", token.For, id)
	}
	key, request, err := certs.Request(dir)
	if err != nil {
		return err
	}
	body, err := json.Marshal(JoinRequest{string(token.For.Role), token.For.Name, token.Secret.Reveal(), request}) //nolint:gosec // the secret is what is asked with
	if err != nil {
		return fmt.Errorf("encode request to join: %w", err)
	}
	addresses := slices.Clone(token.Addresses)
	var last error
	for {
		for _, address := range addresses {
			answer, code, err := askToJoin(ctx, token, address, body)
			switch {
			case err != nil:
				last = err
			case code == http.StatusOK:
				return joined(dir, addresses, answer, key)
			case code == http.StatusForbidden:
				return fault.New(fault.Denied, "join as %s: %s", token.For, answer.Error)
			default:
				last = fault.New(fault.Unavailable, "%s", answer.Error)
				if answer.Leader != "" && !slices.Contains(addresses, answer.Leader) {
					addresses = append(addresses, answer.Leader)
				}
			}
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "no coordinator lets %s join (%w): %w", token.For, last, ctx.Err())
		case <-time.After(between):
		}
	}
}

// joined keeps an answer: the certificate last, for with that who asked has joined.
func joined(dir string, addresses []string, a JoinAnswer, key []byte) error {
	if err := os.WriteFile(filepath.Join(dir, EndpointsFile), []byte(strings.Join(addresses, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the coordinators' addresses: %w", err)
	}
	trusted, err := certs.Trust(dir, a.CA)
	if err != nil {
		return err
	}
	return certs.Write(dir, trusted, certs.Pair{Cert: a.Certificate, Key: key})
}

func askToJoin(ctx context.Context, token certs.Token, address string, body []byte) (answer JoinAnswer, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	config, err := token.Client()
	if err != nil {
		return answer, 0, err
	}
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+JoinPath, bytes.NewReader(body))
	if err != nil {
		return answer, 0, fmt.Errorf("coordinator at %q: %w", address, err)
	}
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return answer, 0, fmt.Errorf("ask to join: %w", err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return answer, 0, fmt.Errorf("read answer of coordinator at %s: %w", address, err)
	}
	return answer, response.StatusCode, nil
}
