package keeper

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// qmp runs one command on a QEMU Machine Protocol socket:
// https://www.qemu.org/docs/master/interop/qmp-spec.html
func qmp(ctx context.Context, socket, command string, arguments any) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fault.As(fault.Unavailable, fmt.Errorf("reach qemu-storage-daemon: %w", err))
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Minute)
	}
	_ = conn.SetDeadline(deadline) // a unix socket takes deadlines
	decoder, encoder := json.NewDecoder(conn), json.NewEncoder(conn)
	var greeting json.RawMessage
	if err := decoder.Decode(&greeting); err != nil {
		return fmt.Errorf("read greeting of qemu-storage-daemon: %w", err)
	}
	type request struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}
	for _, r := range []request{{"qmp_capabilities", nil}, {command, arguments}} {
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("send %s: %w", r.Execute, err)
		}
		if err := qmpAnswer(decoder, r.Execute); err != nil {
			return err
		}
	}
	return nil
}

// qmpAnswer reads until the answer, passing over events.
func qmpAnswer(decoder *json.Decoder, command string) error {
	for {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Event  string          `json:"event"`
			Error  *struct {
				Class string `json:"class"`
				Desc  string `json:"desc"`
			} `json:"error"`
		}
		if err := decoder.Decode(&answer); err != nil {
			return fmt.Errorf("read answer to %s: %w", command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("%s: qemu-storage-daemon says: %s", command, answer.Error.Desc)
		case answer.Event == "":
			return nil
		}
	}
}
