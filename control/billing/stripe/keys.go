package stripe

import (
	"fmt"
	"time"
)

// keyWindow is for how long the same request has the same idempotency key.
const keyWindow = 5 * time.Minute

// idempotencyKey returns a key that whoever does the same at about the same time sends, too, so
// that Stripe does it once. It does not last: Stripe answers a key with what it answered first
// for a day, also where that was an error of its own, or what is not so any more.
func idempotencyKey(what string, at time.Time) string {
	return fmt.Sprintf("%s-%d", what, at.Truncate(keyWindow).Unix())
}
