package quota

import "time"

// Evict runs what the loop runs now and then.
func Evict(r *Rates, now time.Time) { r.evict(now) }
