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

const (
	// firstPause is how long an endpoint is left alone that did not take an event; each time it is
	// twice as long.
	firstPause = 200 * time.Millisecond
	// awayPause is the longest pause for one that is away, and refusedPause for one that wants
	// nothing of it: it would write that down each time.
	awayPause, refusedPause = 5 * time.Second, time.Minute
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

// deliver sends events to an endpoint in order, each until it is taken.
func (s *Server) deliver(o *endpoint) {
	pause, said := firstPause, false
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
		if err := s.site.sendTo(o, next); err != nil {
			if s.site.ctx.Err() != nil {
				return
			}
			if !said {
				s.site.log.Info("a webhook endpoint does not take an event; it is sent again until it does", "url", o.url, "event", next.ID, "error", err)
			}
			said = true
			select {
			case <-time.After(pause):
			case <-s.site.ctx.Done():
				return
			}
			longest := awayPause
			if errors.Is(err, errRefused) {
				longest = refusedPause
			}
			pause = min(2*pause, longest)
			continue
		}
		pause, said = firstPause, false
		s.mu.Lock()
		d := delivered{Endpoint: o.id, Event: next.ID}
		if err := s.keep(entry{Delivered: &d}); err != nil {
			s.site.log.Error("that an event was delivered is not kept: it will come again", "event", next.ID, "error", err)
		}
		s.delivered(d)
		s.mu.Unlock()
	}
}

// delivered forgets an event that an endpoint has taken. The caller holds the lock.
func (s *Server) delivered(d delivered) {
	o, err := lookUp(s.endpoints, "webhook endpoint", d.Endpoint)
	if err == nil && len(o.waits) > 0 && o.waits[0].ID == d.Event {
		o.waits = o.waits[1:]
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
