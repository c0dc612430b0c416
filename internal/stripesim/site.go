package stripesim

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options are what Open needs.
type Options struct {
	// URL is where the server is reached, such as http://127.0.0.1:9101: its pages are below it.
	URL string
	// State is the file that keeps what happened. "" keeps nothing.
	State string
	// Now is the clock that this account's follows. Default time.Now.
	Now func() time.Time
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// site is what a Server of Open has more than one of a test: pages for people, a clock that goes
// on, webhooks that are delivered, and a file that keeps all of it.
type site struct {
	url   string
	now   func() time.Time
	log   *slog.Logger
	pages *template.Template
	post  *http.Client
	pauses

	journal *journal // nil keeps nothing
	ctx     context.Context
	end     context.CancelFunc
	works   sync.WaitGroup
	live    bool // what happened before has been played; under the server's lock
}

// Open returns an account that people can pay to, with all that the file of o says happened to
// it. Its Handler has to be served at its URL. Its clock goes on by itself: subscriptions renew
// when they are due, also while nobody ran it. Events go, signed and in order, to the webhook
// endpoints that are on this machine; what one does not take is sent again, though not for ever. Close it.
func Open(o Options) (*Server, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.HasSuffix(o.URL, "/") {
		return nil, fmt.Errorf("stripesim: URL %q: write it like http://127.0.0.1:9101", o.URL)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	pages, err := parsePages()
	if err != nil {
		return nil, fmt.Errorf("stripesim: pages: %w", err)
	}
	head, entries := head{Format: format, Tag: newTag(), Since: o.Now().Unix()}, []entry(nil)
	var j *journal
	if o.State != "" {
		if j, head, entries, err = openJournal(o.State, head); err != nil {
			return nil, fmt.Errorf("stripesim: %w", err)
		}
	}
	s := newServer(head.Tag, time.Unix(head.Since, 0))
	s.site = &site{url: o.URL, now: o.Now, log: o.Logger, pages: pages, post: newPoster(), journal: j}
	s.site.pauses = pauses{first: 200 * time.Millisecond, away: 5 * time.Second, refused: time.Minute}
	s.site.ctx, s.site.end = context.WithCancel(context.Background())
	if entries, err = s.play(entries); err == nil && j != nil {
		err = j.shorten(head, entries)
	}
	if err != nil {
		s.site.close()
		return nil, fmt.Errorf("stripesim: %s: %w", o.State, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.site.live = true
	for _, e := range s.endpoints {
		s.watch(e)
	}
	s.site.works.Go(s.follow)
	return s, nil
}

// play does what happened before, and returns the entries that are needed for it: an endpoint's last
// event alone says what it has taken.
func (s *Server) play(entries []entry) (needed []entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := make(map[string]int) // by endpoint
	for n, e := range entries {
		if e.Delivered != nil {
			last[e.Delivered.Endpoint] = n
		}
	}
	for n, e := range entries {
		s.advance(time.Unix(e.At, 0))
		if s.next != e.IDs {
			return nil, fmt.Errorf("entry %d was written by another version of this simulator, which numbers otherwise: remove the file, and what refers to it", n+1)
		}
		need := true
		switch {
		case e.Request != nil:
			s.perform(*e.Request)
		case e.Action != nil:
			_ = s.act(*e.Action) // it was told when it happened
		case e.Delivered != nil:
			s.delivered(*e.Delivered)
			need = last[e.Delivered.Endpoint] == n
		}
		if need {
			needed = append(needed, e)
		}
	}
	return needed, nil
}

func (site *site) close() {
	site.end()
	site.works.Wait()
	if site.journal != nil {
		site.journal.close()
	}
}

// keep writes down what is about to happen, before it does. Whoever plays the file must come to
// the same ids, so nothing else may make any but the clock. The caller holds the lock.
func (s *Server) keep(e entry) error {
	if s.site == nil || !s.site.live || s.site.journal == nil {
		return nil
	}
	e.At, e.IDs = s.now.Unix(), s.next
	return s.site.journal.append(e)
}

// tick moves the clock to the present. The caller holds the lock.
func (s *Server) tick() {
	if s.site == nil {
		return
	}
	// Never back: what happened has its time.
	if now := s.site.now().UTC().Truncate(time.Second); now.After(s.now) {
		s.advance(now)
	}
}

// follow has happen what is due while nobody asks.
func (s *Server) follow() {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-s.site.ctx.Done():
			return
		case <-every.C:
			s.mu.Lock()
			s.tick()
			s.mu.Unlock()
		}
	}
}

// pay has a customer pay at a checkout page, with a card that works or not. One that does not is
// not kept; the subscription that was begun waits, and the page can be paid again.
func (s *Server) pay(cs *session, declined bool) error {
	c, err := lookUp(s.customers, "customer", cs.customer)
	if err != nil {
		return err
	}
	prices, err := s.pricesOf(cs)
	if err != nil {
		return err
	}
	if declined && cs.trialDays > 0 {
		return nil // nothing begins: the card is only looked at
	}
	before := c.declines
	c.declines = declined
	o, err := lookUp(s.subscriptions, "subscription", cs.begun)
	if err == nil && o.status == "active" { // its invoice was paid elsewhere
		s.complete(cs, o)
		return nil
	}
	if err == nil && o.status == "incomplete" {
		in, err := lookUp(s.invoices, "invoice", o.latestInvoice)
		if err != nil {
			return err
		}
		s.retry(o, in)
	} else {
		o = s.subscribe(c.id, prices, cs.trialDays)
	}
	if o.status == "incomplete" {
		c.declines, cs.begun = before, o.id
		return nil
	}
	s.complete(cs, o)
	return nil
}

// action is what somebody does on a page.
type action struct {
	Do string `json:"do"`
	// On is what it is done to: a session, an invoice, a subscription or a customer.
	On string `json:"on"`
}

// What can be done on pages.
const (
	doPay      = "pay"      // a session, or an invoice
	doDecline  = "decline"  // a session: pay with a card that is declined
	doCancel   = "cancel"   // a subscription, with its period
	doResume   = "resume"   // a subscription: take that back
	doCard     = "card"     // a customer: a card that works, and what is open is paid
	doDeadCard = "deadcard" // a customer: a card that will be declined
)

// act does what somebody does on a page. The caller holds the lock.
func (s *Server) act(a action) error {
	kind, _, _ := strings.Cut(a.On, "_")
	switch kind + " " + a.Do {
	case "cs " + doPay, "cs " + doDecline:
		cs, err := lookUp(s.sessions, "checkout.session", a.On)
		if err != nil {
			return err
		}
		if cs.status != "open" {
			return invalid("the session is %s", cs.status)
		}
		return s.pay(cs, a.Do == doDecline)
	case "in " + doPay:
		in, err := lookUp(s.invoices, "invoice", a.On)
		if err != nil {
			return err
		}
		return s.payOpen(in.customer, func(other *invoice, _ *subscription) bool { return other == in })
	case "cus " + doCard:
		// A subscription that was begun and not paid for is its page's business.
		return s.payOpen(a.On, func(in *invoice, o *subscription) bool { return in.customer == a.On && o.status != "incomplete" })
	case "cus " + doDeadCard:
		c, err := lookUp(s.customers, "customer", a.On)
		if err == nil {
			c.declines = true
		}
		return err
	case "sub " + doCancel, "sub " + doResume:
		o, err := lookUp(s.subscriptions, "subscription", a.On)
		if err != nil {
			return err
		}
		if o.over() {
			return invalid("the subscription is over")
		}
		o.cancelAtPeriodEnd = a.Do == doCancel
		s.emit("customer.subscription.updated", o.object())
		return nil
	}
	return errors.New("there is nothing like that to do")
}

// payOpen gives a customer a card that works, and tries those open invoices with it.
func (s *Server) payOpen(customer string, which func(*invoice, *subscription) bool) error {
	c, err := lookUp(s.customers, "customer", customer)
	if err != nil {
		return err
	}
	c.declines = false
	for _, in := range s.invoices {
		o, err := lookUp(s.subscriptions, "subscription", in.subscription)
		if err == nil && in.status == "open" && which(in, o) {
			s.retry(o, in)
		}
	}
	return nil
}
