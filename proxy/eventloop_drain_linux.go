package proxy

import "time"

// patience is how long the client may take to take something of what is pending.
func (t *loopStream) patience() time.Duration {
	limit := time.Duration(t.c.s.cfg.Timeouts.Write)
	if t.c.s.state.Load() == stateClosed {
		limit = min(limit, cutTime) // the process ends
	}
	return limit
}

// forsake has the loop end what goes to the client, also of a stream that has ended, which
// no cancel reaches. It is called from anywhere.
func (t *loopStream) forsake() { t.d.Post((*forsaken)(t)) }

// Run ends what goes to the client.
func (f *forsaken) Run() {
	t := (*loopStream)(f)
	defer t.rescue()
	t.clientGone()
}
