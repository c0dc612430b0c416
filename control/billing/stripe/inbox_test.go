package stripe_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

const event = `{"id":"evt_1","object":"event","type":"invoice.paid","api_version":"2023-10-16","created":1700000000,"data":{"object":{"id":"in_1"}}}`

func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	now := time.Now()
	good := stripesim.Sign([]byte(event), secret, now)
	signed := func(body string) (string, string) { return body, stripesim.Sign([]byte(body), secret, now) }
	swapped := strings.Replace(event, "in_1", "in_2", 1)
	for name, c := range map[string]struct {
		body, signature string
		want            error
	}{
		"no signature":         {event, "", stripe.ErrForged},
		"nonsense":             {event, "t=1,v1", stripe.ErrForged},
		"another secret":       {event, stripesim.Sign([]byte(event), "whsec_fake_wrong", now), stripe.ErrForged},
		"an empty secret":      {event, stripesim.Sign([]byte(event), "", now), stripe.ErrForged},
		"another body":         {swapped, good, stripe.ErrForged},
		"a body with a space":  {event + " ", good, stripe.ErrForged},
		"too old":              {event, stripesim.Sign([]byte(event), secret, now.Add(-6*time.Minute)), stripe.ErrForged},
		"a newer time written": {event, strings.Replace(stripesim.Sign([]byte(event), secret, now.Add(-time.Hour)), "t=", "t=9", 1), stripe.ErrForged},
		"a test signature":     {event, strings.Replace(good, "v1=", "v0=", 1), stripe.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			if err := e.inbox.Receive(t.Context(), []byte(c.body), c.signature); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	for name, body := range map[string]string{
		"nothing":        ``,
		"no JSON":        `{"id":`,
		"a list":         `[]`,
		"no event":       strings.Replace(event, `"event"`, `"charge"`, 1),
		"no id":          strings.Replace(event, `evt_1`, ``, 1),
		"a foreign id":   strings.Replace(event, `evt_1`, `ch_1`, 1),
		"a long id":      strings.Replace(event, `evt_1`, `evt_`+strings.Repeat("x", 300), 1),
		"NUL in the id":  strings.Replace(event, `evt_1`, `evt_\u0000`, 1),
		"no type":        strings.Replace(event, `invoice.paid`, ``, 1),
		"no time":        strings.Replace(event, `1700000000`, `0`, 1),
		"an absurd time": strings.Replace(event, `1700000000`, `9000000000000000000`, 1),
		"no object":      strings.Replace(event, `{"object":{"id":"in_1"}}`, `{}`, 1),
		"no UTF-8":       strings.Replace(event, `in_1`, "in_\xff", 1),
	} {
		t.Run(name, func(t *testing.T) {
			body, signature := signed(body)
			if err := e.inbox.Receive(t.Context(), []byte(body), signature); !errors.Is(err, control.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
	large := append([]byte(event), bytes.Repeat([]byte(" "), stripe.MaxBody)...)
	if err := e.inbox.Receive(t.Context(), large, stripesim.Sign(large, secret, now)); !errors.Is(err, stripe.ErrTooLarge) {
		t.Errorf("oversize: %v", err)
	}
	if n := e.query("SELECT count(*) FROM stripe_events"); n != "0" {
		t.Errorf("%s events were kept", n)
	}
	if e.metric(t, "billing_stripe_webhooks_total", "forged") != 9 || e.metric(t, "billing_stripe_webhooks_total", "malformed") != 14 {
		t.Error("they are not counted")
	}
}

func TestReceiveKeepsOnce(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	for _, s := range []string{secret, "whsec_fake_other", secret} { // while they are rotated both hold
		if err := e.inbox.Receive(t.Context(), []byte(event), stripesim.Sign([]byte(event), s, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	other := strings.NewReplacer("evt_1", "evt_2", "2023-10-16", "2025-03-31.basil").Replace(event)
	e.receive(t, []byte(other))
	if got := e.query("SELECT string_agg(id || ' ' || api_version || ' ' || (payload->'data'->'object'->>'id'), ',' ORDER BY id) FROM stripe_events"); got != "evt_1 2023-10-16 in_1,evt_2 2025-03-31.basil in_1" {
		t.Errorf("kept %s", got)
	}
	for result, want := range map[string]float64{"kept": 1, "repeated": 2, "other_version": 1} {
		if got := e.metric(t, "billing_stripe_webhooks_total", result); got != want {
			t.Errorf("%s: %g, want %g", result, got, want)
		}
	}
	// Without Postgres Stripe has to send it again.
	e.store.Close()
	third := []byte(strings.Replace(event, "evt_1", "evt_3", 1))
	err := e.inbox.Receive(t.Context(), third, stripesim.Sign(third, secret, time.Now()))
	if err == nil || errors.Is(err, stripe.ErrForged) || errors.Is(err, control.ErrInvalid) {
		t.Errorf("without Postgres: %v", err)
	}
}

func TestNewInboxWantsSecrets(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	for _, secrets := range [][]string{nil, {""}, {secret, ""}} {
		if _, err := stripe.NewInbox(stripe.InboxOptions{Store: e.store, Secrets: secrets}); err == nil {
			t.Errorf("accepted %q", secrets)
		}
	}
}
