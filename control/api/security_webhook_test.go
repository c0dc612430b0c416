package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// sender is whoever posts webhooks.
func (e *env) sender() *client {
	return &client{t: e.t, base: e.customers, cookies: map[string]string{}, header: http.Header{}}
}

const webhookPath = "/v1/webhooks/stripe"

// payment is an event that says that a subscription was paid.
func payment(id string) string {
	return fmt.Sprintf(`{"id":"%s","object":"event","type":"invoice.payment_succeeded","api_version":"2023-10-16","created":%d,`+
		`"data":{"object":{"id":"in_1","object":"invoice","subscription":"sub_1"}}}`, id, time.Now().Unix())
}

func forgedWebhooks(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	body := payment("evt_forged")
	now := time.Now()
	good := stripesim.Sign([]byte(body), fakeWebhookSecret, now)
	at := strings.Split(strings.TrimPrefix(good, "t="), ",")[0]
	forged := map[string]struct{ body, signature string }{
		"no signature":       {body, ""},
		"nonsense":           {body, "whatever"},
		"another secret":     {body, stripesim.Sign([]byte(body), "whsec_fake_guess", now)},
		"no secret":          {body, stripesim.Sign([]byte(body), "", now)},
		"another body":       {strings.Replace(body, "sub_1", "sub_2", 1), good},
		"a later time":       {body, strings.Replace(good, at, fmt.Sprint(now.Add(time.Hour).Unix()), 1)},
		"an old scheme":      {body, strings.Replace(good, "v1=", "v0=", 1)},
		"the time alone":     {body, "t=" + at},
		"signed, not JSON":   {"not JSON", stripesim.Sign([]byte("not JSON"), fakeWebhookSecret, now)},
		"signed, no event":   {`{"id":"evt_1"}`, stripesim.Sign([]byte(`{"id":"evt_1"}`), fakeWebhookSecret, now)},
		"an empty signature": {body, "t=,v1="},
	}
	for name, f := range forged {
		var header []string
		if f.signature != "" {
			header = []string{"Stripe-Signature", f.signature}
		}
		a := s.sender().do("POST", webhookPath, f.body, header...)
		if a.status != http.StatusBadRequest || a.problem() != "malformed" || strings.Contains(string(a.body), "signature") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if n := s.count("stripe_events"); n != "0" {
		t.Errorf("%s events were kept", n)
	}
	if n := s.count("audit_log WHERE action = 'webhook.refused' AND actor = 'anonymous' AND detail ? 'address' AND detail ? 'request_id'"); n != fmt.Sprint(len(forged)) {
		t.Errorf("%s of %d are in the audit log", n, len(forged))
	}
	if n := s.count("audit_log WHERE detail::text LIKE '%sub_%' OR detail::text LIKE '%evt_%'"); n != "0" {
		t.Error("what strangers sent is in the audit log")
	}
	// The same event by Stripe is taken, with cookies or without, and is no customer's request.
	s.sender().want(http.StatusOK, "POST", webhookPath, body, "Stripe-Signature", good)
	if n := s.count("stripe_events"); n != "1" {
		t.Errorf("%s events were kept", n)
	}
}

// What Stripe did sign, sent again: within the tolerance it is the same event and has no second
// effect, and later it is refused.
func replayedWebhooks(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	account, c, _ := s.buyer("ada@example.com", "starter")
	state := func() string {
		t.Helper()
		return s.pg.Query(`SELECT (SELECT string_agg(p::text, '|' ORDER BY period_id) FROM usage_periods p), (SELECT string_agg(m::text, '|' ORDER BY id) FROM mails m),
			(SELECT string_agg(e.id || e.attempts || coalesce(e.processed_at::text, ''), '|' ORDER BY id) FROM stripe_events e), (SELECT string_agg(c::text, '|' ORDER BY id) FROM customers c),
			(SELECT string_agg(concat_ws(' ', id, status, tier, period_start, read_at), '|' ORDER BY id) FROM subscriptions)`)
	}
	before, refused := state(), 0
	for _, ev := range s.delivered {
		s.sender().want(http.StatusOK, "POST", webhookPath, string(ev.Body), "Stripe-Signature", stripesim.Sign(ev.Body, fakeWebhookSecret, time.Now()))
		for _, ago := range []time.Duration{6 * time.Minute, 30 * 24 * time.Hour} {
			a := s.sender().do("POST", webhookPath, string(ev.Body), "Stripe-Signature", stripesim.Sign(ev.Body, fakeWebhookSecret, time.Now().Add(-ago)))
			if a.problem() != "malformed" {
				t.Errorf("signed %v ago: %d %s", ago, a.status, a.body)
			}
			refused++
		}
	}
	if n, err := s.processor.ProcessDue(t.Context()); n != 0 || err != nil {
		t.Errorf("%d events were worked again, %v", n, err)
	}
	if after := state(); after != before || refused == 0 {
		t.Errorf("after %d refusals it is\n%s, was\n%s", refused, after, before)
	}
	if n := s.count("audit_log WHERE action = 'webhook.refused'"); n != fmt.Sprint(refused) {
		t.Errorf("%s of %d are in the audit log", n, refused)
	}
	// Of the customer that it is about it gives the sender nothing, and takes nothing.
	var p api.Profile
	c.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &p)
	if p.ID != account.ID || p.Status != control.CustomerActive {
		t.Errorf("%+v", p)
	}
}

// However many are forged, few are in the audit log, and they keep nothing else out of it.
func floodOfForgedWebhooks(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(o *api.Options) { o.SignIns.Audited = api.Rate{PerSecond: 1e-6, Burst: 5} })
	for i := range 60 {
		s.sender().want(http.StatusBadRequest, "POST", webhookPath, payment(fmt.Sprintf("evt_%d", i)), "Stripe-Signature", "t=1,v1=00", "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
	}
	if n := s.count("audit_log WHERE action = 'webhook.refused'"); n != "5" {
		t.Errorf("%s entries in the audit log, want as many as its limit", n)
	}
	newClient(t, s.customers).want(http.StatusUnauthorized, "POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: fakePassword})
	if n := s.count("audit_log WHERE action = 'session.refused'"); n != "1" {
		t.Errorf("a guessed password beside them: %s entries", n)
	}
	// Nor do they keep Stripe out.
	body := payment("evt_good")
	s.sender().want(http.StatusOK, "POST", webhookPath, body, "Stripe-Signature", stripesim.Sign([]byte(body), fakeWebhookSecret, time.Now()))
}

// Strangers' requests do not keep Stripe out that comes from the same address, as behind a proxy
// that is not trusted; and its own are limited, too.
func webhooksHaveTheirOwnLimit(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(o *api.Options) {
		o.PerAddress, o.Webhooks = api.Rate{PerSecond: 1e-6, Burst: 3}, api.Rate{PerSecond: 1e-6, Burst: 5}
	})
	stranger := newClient(t, s.customers)
	for range 3 {
		stranger.want(http.StatusOK, "GET", "/v1/tiers", nil)
	}
	stranger.want(http.StatusTooManyRequests, "GET", "/v1/tiers", nil)
	for n := range 5 {
		body := payment(fmt.Sprint("evt_", n))
		s.sender().want(http.StatusOK, "POST", webhookPath, body, "Stripe-Signature", stripesim.Sign([]byte(body), fakeWebhookSecret, time.Now()))
	}
	s.sender().want(http.StatusTooManyRequests, "POST", webhookPath, payment("evt_5"))
	// Another method of the path is anybody's request.
	stranger.want(http.StatusTooManyRequests, "GET", webhookPath, nil)
}
