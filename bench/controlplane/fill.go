package controlplane

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/platform"
)

// burst is how many events an agent sends one after the other.
const burst = 10

// heavy is how many of the first customers, which use the most, get an API key; as many
// again by chance get one as well, three times.
const heavy = 1000

// unchecked leaves out the look-ups of foreign keys, row by row: what is loaded has its
// customers by the way it is made.
const unchecked = `SET session_replication_role = replica; `

// startOf is when customer n's period of the month begins; it says no more than n does, so that
// events and periods agree. Within 28 days, so that every month has the day.
func startOf(month, n string) string {
	return fmt.Sprintf(`(%[1]s + %[2]s * 37 %% 28 * interval '1 day' + %[2]s %% 24 * interval '1 hour')`, month, n)
}

func periodID(start string) string {
	return `to_char(` + start + ` AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')`
}

// fill makes customers, their events month by month, and what is summed up of them.
func (b *Bench) fill(ctx context.Context, p *platform.Platform) error {
	months, now := b.months(), b.now
	b.Say("making %d customers", b.Customers)
	if _, err := p.SQL(ctx, fmt.Sprintf(unchecked+`
INSERT INTO customers (id, name, email, tier, status, created_at, renews_at)
SELECT 'bench' || n, 'Bench ' || n, 'bench' || n || '@example.com', (ARRAY['starter', 'pro', 'team'])[n %% 3 + 1],
	CASE WHEN n %% 100 < 90 THEN 'active' WHEN n %% 100 < 95 THEN 'suspended' WHEN n %% 100 < 98 THEN 'pending' ELSE 'cancelled' END,
	timestamptz '%[2]s' - (n::bigint * 7919 %% %[1]d) * (interval '%[3]d days' / %[1]d), timestamptz '%[2]s' + n %% 28 * interval '1 day'
FROM generate_series(1, %[1]d) n;
INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
SELECT 'sub' || n, 'bench' || n, 'active', 'pro', now() - interval '1 day', now() + interval '29 days', now() FROM generate_series(1, %[1]d) n;
INSERT INTO boxes (id, customer_id, namespace, state, created_at, subscription_id)
SELECT 'box' || substr(id, 6), id, 'customer-' || id, 'active', created_at, 'sub' || substr(id, 6) FROM customers;
INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint, created_at)
SELECT 't' || substr(id, 6), id, 'box' || substr(id, 6), sha256(id::bytea), 'abcd', created_at FROM customers;
INSERT INTO audit_log (actor, action, customer_id, target, at)
SELECT 'bench', 'customer.create', id, id, created_at + m * interval '1 day' FROM generate_series(0, 4) m, customers`, b.Customers, now.Format(time.RFC3339), 30*b.Months)); err != nil {
		return fmt.Errorf("fill: customers: %w", err)
	}
	for i, month := range months {
		end := month.AddDate(0, 1, 0)
		if end.After(now) {
			end = now
		}
		b.Say("making events of %s", month.Format("2006-01"))
		if _, err := p.SQL(ctx, b.monthSQL(i, month, end)); err != nil {
			return fmt.Errorf("fill: events of %s: %w", month.Format("2006-01"), err)
		}
	}
	start := startOf("month", "n")
	for _, step := range []struct{ what, sql string }{
		{"making the periods", fmt.Sprintf(unchecked+`
INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, requests, prompt_tokens, cached_tokens,
	completion_tokens, reasoning_tokens, settled_tokens, unbilled_tokens)
SELECT p.customer_id, p.period_id, p.starts_at, p.starts_at + interval '1 month', 20000000, 1, coalesce(requests, 0), coalesce(prompt, 0), coalesce(cached, 0),
	coalesce(completion, 0), coalesce(reasoning, 0), coalesce(settled, 0), coalesce(unbilled, 0)
FROM (
	SELECT 'bench' || n AS customer_id, %[3]s AS period_id, %[4]s AS starts_at
	FROM generate_series(timestamptz '%[5]s', timestamptz '%[6]s', interval '1 month') month, generate_series(1, %[1]d) n WHERE %[4]s <= timestamptz '%[2]s'
) p LEFT JOIN (
	SELECT customer_id, period_id, sum(requests)::bigint AS requests, sum(prompt_tokens)::bigint AS prompt, sum(cached_tokens)::bigint AS cached,
		sum(completion_tokens)::bigint AS completion, sum(reasoning_tokens)::bigint AS reasoning, sum(settled_tokens)::bigint AS settled,
		sum(unbilled_tokens)::bigint AS unbilled
	FROM usage_days GROUP BY customer_id, period_id
) u USING (customer_id, period_id)`,
			b.Customers, now.Format(time.RFC3339), periodID(start), start, months[0].AddDate(0, -1, 0).Format(time.RFC3339), months[len(months)-1].Format(time.RFC3339))},
		{"vacuuming", `VACUUM ANALYZE`},
	} {
		b.Say("%s", step.what)
		if _, err := p.SQL(ctx, step.sql); err != nil {
			return fmt.Errorf("fill: %s: %w", step.what, err)
		}
	}
	return b.keys(ctx, p)
}

// monthSQL makes a month's events: the table beside, and then attached, which is when its indexes
// are built. Customer 1 uses about 1/50 of all, the middle one as good as nothing.
func (b *Bench) monthSQL(i int, month, end time.Time) string {
	events := b.Events / len(b.months())
	start := startOf(fmt.Sprintf("timestamptz '%s'", month.Format(time.RFC3339)), "n")
	part := month.Format("usage_events_2006_01")
	return fmt.Sprintf(unchecked+`
DROP TABLE IF EXISTS %[1]s;
CREATE TABLE %[1]s (LIKE usage_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
INSERT INTO %[1]s
SELECT 'replica' || e %% 8, e, at, CASE WHEN %[2]s <= at THEN %[3]s ELSE %[4]s END, 'req-' || e, 'up-' || e, 'bench' || n, 'box' || n, 't' || n, 'pro',
	'kimi-k2', CASE e %% 10 WHEN 0 THEN 'kimi-k2-thinking' ELSE 'kimi-k2' END, 'openai', 'kimi', prompt, prompt / 2, 200, 20, prompt + 200, 0, prompt + 5000,
	'upstream', 'ok', 200, 300000, 900000, at
FROM (
	SELECT %[5]d::bigint + s * %[6]d + i AS e, n, first + i * interval '20 seconds' AS at, 500 + (s * 7 + i * 331) %% 20000 AS prompt
	FROM (
		SELECT s, 1 + floor(%[7]d * power(random(), 3))::bigint AS n,
			timestamptz '%[8]s' + random() * (timestamptz '%[9]s' - timestamptz '%[8]s' - interval '5 minutes') AS first
		FROM generate_series(0, %[10]d) s
	) sessions, generate_series(1, %[6]d) i
) events;
INSERT INTO usage_days
SELECT customer_id, (admitted_at AT TIME ZONE 'UTC')::date, model_served, period_id, count(*), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens),
	sum(reasoning_tokens), sum(settled_tokens), sum(unbilled_tokens)
FROM %[1]s GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;
ALTER TABLE usage_events ATTACH PARTITION %[1]s FOR VALUES FROM ('%[8]s') TO ('%[11]s')`,
		part, start, periodID(start), periodID("("+start+" - interval '1 month')"), int64(i)*int64(events), burst, b.Customers,
		month.Format(time.RFC3339), end.Format(time.RFC3339), max(events/burst, 1)-1, month.AddDate(0, 1, 0).Format(time.RFC3339))
}

// keys gives API keys to those that are asked for: those that use the most, and others by
// chance.
func (b *Bench) keys(ctx context.Context, p *platform.Platform) error {
	with := map[int]bool{}
	for n := 1; n <= min(heavy, b.Customers); n++ {
		with[n] = true
	}
	for range 3 * heavy {
		with[1+mathrand.IntN(b.Customers)] = true
	}
	maps.DeleteFunc(with, func(n int, _ bool) bool { return n%100 >= 98 }) // cancelled: their keys are not good
	var sql strings.Builder
	for n := range with {
		if sql.Len() == 0 {
			sql.WriteString(`INSERT INTO api_keys (id, customer_id, digest, hint, name) VALUES `)
		} else {
			sql.WriteByte(',')
		}
		raw := "oca_" + rand.Text() + rand.Text()
		digest, err := p.Digest(raw)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sql, `('k%[1]d','bench%[1]d','\x%[2]s','%[3]s','bench')`, n, digest.Hex(), raw[len(raw)-4:])
		if n <= heavy/20 {
			b.busiest = append(b.busiest, raw)
		}
		b.all = append(b.all, raw)
		if sql.Len() > 100_000 { // it is one argument of psql
			if _, err := p.SQL(ctx, sql.String()); err != nil {
				return fmt.Errorf("fill: API keys: %w", err)
			}
			sql.Reset()
		}
	}
	if sql.Len() == 0 {
		return nil
	}
	if _, err := p.SQL(ctx, sql.String()); err != nil {
		return fmt.Errorf("fill: API keys: %w", err)
	}
	return nil
}
