package stripesim

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

// pauses are how long an endpoint is left alone that did not take an event.
type pauses struct {
	first time.Duration // each time it is twice as long
	// away is the longest for one that is away, and refused for one that wants nothing of the event: it
	// would write that down each time.
	away, refused time.Duration
}

const (
	// leastTries is how often an event is sent before it is given up.
	leastTries = 10
	// waitFor is how long an event waits for an endpoint that is away: "up to three days with an
	// exponential back off" (docs.stripe.com/webhooks, "Automatic retries").
	waitFor = 72 * time.Hour
)

// errRefused: the endpoint wants nothing of an event.
var errRefused = errors.New("it is refused")

// newPoster goes straight to this machine, and nowhere else.
func newPoster() *http.Client {
	return &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// here reports whether a URL is on this machine.
func here(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	return onLoopback(u.Hostname())
}

func onLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// send has an event wait for each endpoint that wants it. The caller holds the lock.
func (s *Server) send(e Event) {
	for _, o := range s.endpoints {
		if o.status != "enabled" || !here(o.url) || !slices.Contains(o.events, e.Type) && !slices.Contains(o.events, "*") {
			continue
		}
		o.waits = append(o.waits, e)
		select {
		case o.wake <- struct{}{}:
		default: // it has been told
		}
	}
}

// watch begins to deliver to an endpoint, once what happened before has been played. The caller
// holds the lock.
func (s *Server) watch(o *endpoint) {
	if s.site == nil {
		return
	}
	if o.wake == nil {
		o.wake = make(chan struct{}, 1)
	}
	if !s.site.live {
		return
	}
	if !here(o.url) {
		s.site.log.Warn("nothing is sent to this webhook endpoint: it is not on this machine", "url", o.url)
		return
	}
	s.site.works.Go(func() { s.deliver(o) })
}

// deliver sends events to an endpoint in order, each until it is taken or given up. One that is refused
// again and again is given up alone. One that was sent for too long to an endpoint that is away ends the
// endpoint, as Stripe's do that fail for days: else those of programs that are gone would be told for ever.
// How old the event is does not matter: it may have happened while nobody ran this process.
func (s *Server) deliver(o *endpoint) {
	var trying string // the id of the event
	var pause time.Duration
	var tries int
	var triedSince time.Time // when this process sent it first
	for {
		s.mu.Lock()
		var next Event
		if len(o.waits) > 0 {
			next = o.waits[0]
		}
		s.mu.Unlock()
		if next.ID == "" {
			select {
			case <-o.wake:
				continue
			case <-s.site.ctx.Done():
				return
			}
		}
		if next.ID != trying {
			trying, pause, tries, triedSince = next.ID, s.site.pauses.first, 0, s.site.now()
		}
		err := s.site.sendTo(o, next)
		if err != nil && s.site.ctx.Err() != nil {
			return
		}
		if tries++; err != nil && !s.giveUp(o, next, tries, triedSince, err) {
			if tries == 1 {
				s.site.log.Info("a webhook endpoint does not take an event, which is sent again", "url", o.url, "event", next.ID, "error", err)
			}
			select {
			case <-time.After(pause):
			case <-s.site.ctx.Done():
				return
			}
			longest := s.site.pauses.away
			if errors.Is(err, errRefused) {
				longest = s.site.pauses.refused
			}
			pause = min(2*pause, longest)
			continue
		}
		s.mu.Lock()
		d := delivered{Endpoint: o.id, Event: next.ID}
		if err := s.keep(entry{Delivered: &d}); err != nil {
			s.site.log.Error("that an event was delivered is not kept: it will come again", "event", next.ID, "error", err)
		}
		s.delivered(d)
		s.mu.Unlock()
	}
}

// giveUp reports whether an event is not sent again to an endpoint that did not take it, and disables one
// that was away for too long, as its owner would.
func (s *Server) giveUp(o *endpoint, e Event, tries int, triedSince time.Time, err error) bool {
	if tries < leastTries {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick()
	refused := errors.Is(err, errRefused)
	if !refused && s.site.now().Sub(triedSince) < waitFor {
		return false
	}
	s.site.log.Warn("an event is given up", "url", o.url, "event", e.ID, "error", err)
	if refused || o.status != "enabled" {
		return true
	}
	s.site.log.Warn("a webhook endpoint is disabled, since it has been away for days: who comes back has to be registered anew", "url", o.url)
	q := request{Method: http.MethodPost, Path: "/v1/webhook_endpoints/" + o.id, Body: "disabled=true"}
	if err := s.keep(entry{Request: &q}); err != nil {
		s.site.log.Error("that a webhook endpoint was disabled is not kept: it will be told again", "url", o.url, "error", err)
	}
	s.perform(q)
	return true
}

// delivered forgets an event that an endpoint has taken, or that was given up, and with it those before it:
// they are sent in order. The caller holds the lock.
func (s *Server) delivered(d delivered) {
	o, err := lookUp(s.endpoints, "webhook endpoint", d.Endpoint)
	if err != nil {
		return
	}
	if i := slices.IndexFunc(o.waits, func(e Event) bool { return e.ID == d.Event }); i >= 0 {
		o.waits = o.waits[i+1:]
	}
}

func (site *site) sendTo(o *endpoint, e Event) error {
	req, err := http.NewRequestWithContext(site.ctx, http.MethodPost, o.url, bytes.NewReader(e.Body))
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Stripe-Signature", Sign(e.Body, o.secret, time.Now()))
	resp, err := site.post.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode/100 == 4:
		return fmt.Errorf("%w: %s", errRefused, resp.Status)
	}
	return errors.New(resp.Status)
}
