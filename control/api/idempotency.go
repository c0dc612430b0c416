package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	keyHeader = "Idempotency-Key"
	// replayedHeader marks an answer that an earlier request got.
	replayedHeader = "Idempotency-Replayed"
	// leaseFor is after how long whoever has a request in hand is taken for dead. Longer
	// than a handler may take.
	leaseFor = time.Minute
	// keysFor is how long keys are known.
	keysFor = 24 * time.Hour
)

// attempt is a request with an idempotency key that is in hand.
type attempt struct {
	request control.IdempotentRequest
	number  int64
	noted   bool // the answer, in the transaction of the effect
}

// beginIdempotent takes the request in hand if it has a key. It returns the answer that the
// request got before, if it did.
func (c *call) beginIdempotent() (*control.Answer, error) {
	values := c.r.Header.Values(keyHeader)
	if len(values) == 0 {
		return nil, nil
	}
	if !c.route.idempotent() {
		return nil, nil // the route does the same however often it is called
	}
	key := values[0]
	if len(values) > 1 || key == "" || len(key) > 255 {
		return nil, invalid(keyHeader, "it must be one text of 1…255 characters")
	}
	for _, b := range []byte(key) {
		if b < '!' || b > '~' {
			return nil, invalid(keyHeader, "it must be printable ASCII without spaces")
		}
	}
	r := control.IdempotentRequest{Subject: c.who.subject, Key: key, Digest: c.digest()}
	now := c.a.now()
	number, answer, err := c.a.o.Store.BeginIdempotent(c.ctx(), r, now, leaseFor, now.Add(keysFor))
	switch {
	case errors.Is(err, control.ErrInvalid):
		return nil, &failure{kind: kindInvalid(), detail: "The " + keyHeader + " was used for another request.", cause: err}
	case errors.Is(err, control.ErrConflict):
		return nil, &failure{kind: kindConflict(), detail: "The request with this " + keyHeader + " is in hand.", retryAfter: time.Second, cause: err}
	case err != nil:
		return nil, err
	}
	if answer == nil {
		c.key = &attempt{request: r, number: number}
	}
	return answer, nil
}

// digest tells the request from others. It has a secret of ours as its key: bodies hold
// passwords, which whoever reads the table could guess by a digest without one.
func (c *call) digest() [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", c.r.Method, c.r.URL.RequestURI())
	h.Write(c.body)
	return [32]byte(c.a.digest("request " + string(h.Sum(nil))))
}

// note keeps the answer of a request with a key, in the transaction of its effect. What is
// kept must hold no secret: whoever repeats the request gets it without.
//
// Of a change that is to be published it keeps 202: whether the proxies have heard of it is
// not known yet.
func (c *call) note(ctx context.Context, tx *store.Tx, answer any) error {
	if c.key == nil {
		return nil
	}
	status := c.route.op.status
	if c.route.publishes {
		status = http.StatusAccepted
	}
	var body []byte
	if answer != nil {
		var err error
		if body, err = json.Marshal(answer); err != nil {
			return fmt.Errorf("note answer: %w", err)
		}
	}
	if err := tx.FinishIdempotent(ctx, c.key.request, c.key.number, control.Answer{Status: status, Body: body}); err != nil {
		return err
	}
	c.key.noted = true
	return nil
}

// endIdempotent notes the answer if the handler had no transaction to do so in, and lets go
// of a request that failed. The caller may be gone by now.
func (c *call) endIdempotent(answer any, failed error) error {
	if c.key == nil || failed == nil && c.key.noted {
		return failed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx()), 5*time.Second)
	defer cancel()
	if failed != nil {
		// If the effect was committed all the same, so was its answer, and this does nothing.
		if err := c.a.o.Store.AbandonIdempotent(ctx, c.key.request, c.key.number); err != nil {
			c.a.o.Logger.Warn("a request with an idempotency key has to wait before it can be repeated", "request_id", c.id, "error", err)
		}
		return failed
	}
	return c.a.o.Store.InTx(ctx, func(tx *store.Tx) error { return c.note(ctx, tx, answer) })
}
