package telegramsim

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// maxPoll is how long a poll may wait at most.
const maxPoll = 50 * time.Second

// redeliver is how long a webhook that did not take an update is left alone.
const redeliver = 200 * time.Millisecond

type update struct {
	id   int64
	kind string
	body object
}

type webhook struct {
	url    string
	secret string
	end    chan struct{} // closed when the webhook is deleted or replaced
}

// queue adds an update. The caller holds the lock.
func (b *Bot) queue(body object, kind string) {
	b.lastUpdate++
	body["update_id"] = b.lastUpdate
	b.updates = append(b.updates, update{b.lastUpdate, kind, body})
	b.note()
}

// getUpdates is a long poll. A newer one of the same bot ends it.
func (b *Bot) getUpdates(ctx context.Context, p params) (any, error) {
	limit := p.number("limit")
	if limit < 1 || limit > 100 {
		limit = 100
	}
	var allowed []string
	if p["allowed_updates"] != "" && json.Unmarshal([]byte(p["allowed_updates"]), &allowed) != nil {
		return nil, badRequest("can't parse allowed_updates JSON object")
	}
	b.s.mu.Lock()
	if b.webhook.url != "" {
		b.s.mu.Unlock()
		return nil, refuse(http.StatusConflict, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first")
	}
	if b.poll != nil {
		close(b.poll)
	}
	mine := make(chan struct{})
	b.poll = mine
	b.confirm(p.number("offset"))
	b.s.mu.Unlock()
	defer func() {
		b.s.mu.Lock()
		if b.poll == mine {
			b.poll = nil
		}
		b.s.mu.Unlock()
	}()
	timeout := time.NewTimer(min(time.Duration(p.number("timeout"))*time.Second, maxPoll))
	defer timeout.Stop()
	for {
		b.s.mu.Lock()
		out, changed := b.waiting(int(limit), allowed), b.changed
		b.s.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return []object{}, nil
		case <-mine:
			return nil, refuse(http.StatusConflict, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running")
		case <-b.s.closed:
			return nil, refuse(http.StatusBadGateway, "Bad Gateway")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// confirm forgets what lies below offset. A negative one keeps so many of the last.
func (b *Bot) confirm(offset int64) {
	if offset < 0 {
		offset = b.lastUpdate + 1 + offset
	}
	for len(b.updates) > 0 && b.updates[0].id < offset {
		b.updates = b.updates[1:]
	}
}

// waiting returns updates of the kinds that a poller wants; the others it never sees.
func (b *Bot) waiting(limit int, allowed []string) []object {
	kept, out := b.updates[:0:0], []object{}
	for _, u := range b.updates {
		if wanted := len(allowed) == 0; !wanted {
			for _, kind := range allowed {
				wanted = wanted || kind == u.kind
			}
			if !wanted {
				continue
			}
		}
		kept = append(kept, u)
		if len(out) < limit {
			out = append(out, u.body)
		}
	}
	b.updates = kept
	return out
}

func (b *Bot) setWebhook(p params) (any, error) {
	b.endWebhook(p["drop_pending_updates"] == "true")
	if p["url"] == "" {
		return true, nil
	}
	// Telegram wants https; a test's server may do without.
	if u, err := url.Parse(p["url"]); err != nil || u.Host == "" {
		return nil, badRequest("invalid webhook URL specified")
	}
	b.beginWebhook(p["url"], p["secret_token"])
	return true, nil
}

// beginWebhook has updates delivered. The caller holds the lock.
func (b *Bot) beginWebhook(url, secret string) {
	hook := webhook{url, secret, make(chan struct{})}
	b.webhook = hook
	b.s.works.Go(func() { b.deliver(hook) })
}

// endWebhook makes the bot one that polls. The caller holds the lock.
func (b *Bot) endWebhook(drop bool) {
	if b.webhook.end != nil {
		close(b.webhook.end)
	}
	b.webhook = webhook{}
	if drop {
		b.updates = nil
	}
}

// deliver sends updates to a webhook, in order, each until it is taken.
func (b *Bot) deliver(hook webhook) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.s.works.Go(func() {
		defer cancel()
		select {
		case <-hook.end:
		case <-b.s.closed:
		case <-ctx.Done():
		}
	})
	for ctx.Err() == nil {
		b.s.mu.Lock()
		if b.webhook.end != hook.end { // what comes from now on is not for this one
			b.s.mu.Unlock()
			return
		}
		next, changed := b.waiting(1, nil), b.changed
		b.s.mu.Unlock()
		if len(next) == 0 {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if !post(ctx, hook, next[0]) {
			select {
			case <-time.After(redeliver):
			case <-ctx.Done():
			}
			continue
		}
		b.s.mu.Lock()
		b.confirm(next[0]["update_id"].(int64) + 1)
		b.note()
		b.s.mu.Unlock()
	}
}

func post(ctx context.Context, hook webhook, body object) (taken bool) {
	raw, err := json.Marshal(body)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.url, bytes.NewReader(raw))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	if hook.secret != "" {
		req.Header.Set("X-Telegram-Bot-Api-Secret-Token", hook.secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode/100 == 2
}
