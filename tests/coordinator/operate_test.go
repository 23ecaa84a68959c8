package coordinator_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
)

// operate does one operation and notes it. A write that is not answered may be done at any time later; a read that is not
// answered says nothing.
func (h *history) operate(t *testing.T, client *coordinatorapi.Client, id int, in input) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	o := porcupine.Operation{ClientId: id, Input: in, Call: h.now()}
	if in.write {
		err := set(ctx, client, in.register, in.value)
		o.Return = h.now()
		if err != nil {
			o.Return = math.MaxInt64
		}
		h.add(o)
		return
	}
	values, err := get(ctx, client)
	if err != nil {
		return
	}
	o.Output, o.Return = values[in.register], h.now()
	h.add(o)
}
