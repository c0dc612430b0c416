package main_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// The worker removes the events of months that are not kept any more, unless it is told not to.
func TestOldEventsAreRemoved(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	months := func() string {
		return strings.TrimSpace(world.pg.Query(`SELECT count(*) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
			WHERE inhparent = 'usage_events'::regclass AND relname < 'usage_events_2020'`))
	}
	world.pg.Query("SELECT usage_events_ensure_month('2019-05-01'), usage_events_ensure_month('2019-06-01')")
	if n := months(); n != "2" {
		t.Fatalf("%s old months", n)
	}
	// What has expired goes in any case, and without a mail server.
	world.pg.Query("INSERT INTO idempotency_keys (customer_id, key, request_digest, leased_until, created_at, expires_at) " +
		"VALUES ('" + world.customer + "', 'k', decode(repeat('00', 32), 'hex'), now(), now() - interval '2 days', now() - interval '1 day')")
	keeps := startWorker(t, world.env, "--drop-old-events-every", "0s")
	await(t, "the end of what has expired", func() bool {
		return strings.TrimSpace(world.pg.Query("SELECT count(*) FROM idempotency_keys")) == "0" &&
			strings.TrimSpace(world.pg.Query("SELECT count(*) FROM river_job WHERE kind = 'retention' AND state = 'completed'")) != "0"
	}, keeps.said)
	keeps.end(syscall.SIGTERM)
	if n := months(); n != "2" {
		t.Errorf("%s old months are kept", n)
	}
	w := startWorker(t, world.env)
	await(t, "the old months' end", func() bool { return months() == "0" }, w.said)
}

// The worker removes what was published long ago, and its metrics tell of what was set
// aside.
func TestOutboxIsLookedAfter(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	add := func(extra, values string) {
		world.pg.Query(fmt.Sprintf(`INSERT INTO config_changes (kind, customer_id, payload %s) VALUES ('limit', '%s', '{}' %s)`, extra, world.customer, values))
	}
	add(", published_at, feed_seq", ", now() - interval '9 days', 1")
	add(", published_at, feed_seq", ", now() - interval '9 days', 2")
	add(", published_at, feed_seq", ", now() - interval '7 days', 3")
	add("", "") // is published at once
	world.pg.Query(fmt.Sprintf(`INSERT INTO config_changes (kind, customer_id, digest, payload) VALUES ('grant', '%s', '\x%064d', '{}')`, world.customer, 0))
	w := startWorker(t, world.env, "--keep-published-changes", "192h")
	await(t, "the old ones' end", func() bool {
		return strings.TrimSpace(world.pg.Query("SELECT string_agg(id::text, ' ' ORDER BY id) FROM config_changes")) == "3 4 5"
	}, w.said)
	await(t, "the metrics", func() bool {
		_, body := w.get("/metrics")
		return strings.Contains(body, "\ncontrol_outbox_failed_changes 1\n") && strings.Contains(body, "\ncontrol_outbox_pending_changes 0\n") &&
			strings.Contains(body, "\ncontrol_outbox_oldest_seconds 0\n")
	}, w.said)
	await(t, "the word in the log", func() bool { return strings.Contains(w.said(), "set aside") }, w.said)
	if n := strings.Count(w.said(), "set aside"); n != 1 {
		t.Errorf("the log tells of it %d times", n)
	}
}
