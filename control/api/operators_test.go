package api_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestListsComePageByPage(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.operator(control.RoleSupport)
	want := map[string]bool{}
	for range 7 {
		id, _ := e.customer()
		want[id] = true
	}
	for _, path := range []string{"/v1/customers?limit=3", "/v1/boxes?limit=3", "/v1/audit?limit=4"} {
		seen, pages := map[string]bool{}, 0
		for next := ""; ; pages++ {
			var l api.List[struct {
				ID         any    `json:"id"`
				CustomerID string `json:"customer_id"`
			}]
			c.want(http.StatusOK, "GET", path+"&cursor="+next, nil).into(t, &l)
			for _, i := range l.Items {
				id := i.CustomerID
				if s, ok := i.ID.(string); ok && id == "" {
					id = s
				}
				if seen[id] && !strings.Contains(path, "audit") {
					t.Errorf("%s: %s twice", path, id)
				}
				seen[id] = true
			}
			if next = l.Next; next == "" {
				break
			}
		}
		for id := range want {
			if !seen[id] {
				t.Errorf("%s: %s is missing", path, id)
			}
		}
		if pages < 2 {
			t.Errorf("%s: %d pages", path, pages+1)
		}
	}
	for _, bad := range []string{"limit=0", "limit=501", "limit=x", "cursor=!", "cursor=AAAA", "status=gone", "used_from=-1", "used_from=1001", "used_from=90%25", "used_from=0.5", "search=%00", "search=" + strings.Repeat("a", 201)} {
		if a := c.do("GET", "/v1/customers?"+bad, nil); a.problem() != "invalid" {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
}

// grantStatus is what a proxy would find.
func (e *env) grantStatus(d contract.Digest) string {
	e.t.Helper()
	b, err := e.redis.Get(e.t.Context(), contract.GrantKey(d)).Bytes()
	if err != nil {
		return err.Error()
	}
	g, err := contract.DecodeGrant(b)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(g.Status)
}

func (e *env) digestOf(token string) contract.Digest {
	e.t.Helper()
	return e.service.Hasher.Digest([]byte(token))
}

func TestTokensByOperators(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, _ := e.customer()
	_, c := e.operator(control.RoleOperator)
	var first api.CreatedToken
	c.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/tokens", nil).into(t, &first)
	if !contract.PlausibleToken([]byte(first.Token)) || e.grantStatus(e.digestOf(first.Token)) != "active" {
		t.Fatalf("%+v", first.ProxyToken)
	}
	// Replaced, both are good for the overlap.
	began := time.Now()
	var next api.Rotated
	c.want(http.StatusCreated, "POST", "/v1/tokens/"+first.ID+"/rotate", `{"overlap_seconds":3}`).into(t, &next)
	if next.Replaced != first.ID || next.BoxID != first.BoxID || next.Token == first.Token || time.Until(next.RevokedAfter) > 3*time.Second {
		t.Errorf("%+v", next)
	}
	if a, b := e.grantStatus(e.digestOf(first.Token)), e.grantStatus(e.digestOf(next.Token)); a != "active" || b != "active" {
		t.Errorf("during the overlap: %s and %s", a, b)
	}
	var jobs api.List[control.Job]
	c.want(http.StatusOK, "GET", "/v1/jobs?state=scheduled", nil).into(t, &jobs)
	if len(jobs.Items) != 1 || jobs.Items[0].Kind != "token_revocation" {
		t.Errorf("%+v", jobs)
	}
	if err := e.jobs.Start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.jobs.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(40 * time.Second); e.grantStatus(e.digestOf(first.Token)) != "revoked"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the old token was not revoked")
		}
	}
	if took := time.Since(began); took < 2500*time.Millisecond {
		t.Errorf("it was revoked after %v", took)
	}
	// At once.
	var last api.Rotated
	c.want(http.StatusCreated, "POST", "/v1/tokens/"+next.ID+"/rotate", nil).into(t, &last)
	if a, b := e.grantStatus(e.digestOf(next.Token)), e.grantStatus(e.digestOf(last.Token)); a != "revoked" || b != "active" {
		t.Errorf("without an overlap: %s and %s", a, b)
	}
	if a := c.do("POST", "/v1/tokens/"+next.ID+"/rotate", nil); a.problem() != "invalid" || !strings.Contains(string(a.body), "is revoked") {
		t.Errorf("a revoked token: %d %s", a.status, a.body)
	}
	c.want(http.StatusOK, "DELETE", "/v1/tokens/"+last.ID, nil)
	if s := e.grantStatus(e.digestOf(last.Token)); s != "revoked" {
		t.Errorf("revoked: %s", s)
	}
	c.want(http.StatusNotFound, "DELETE", "/v1/tokens/tnone", nil)
	c.want(http.StatusNotFound, "POST", "/v1/customers/cnone/tokens", nil)
	if list := string(c.want(http.StatusOK, "GET", "/v1/tokens?customer="+id, nil).body); strings.Contains(list, contract.TokenPrefix) || strings.Count(list, `"hint"`) != 3 {
		t.Errorf("%s", list)
	}
}

func TestSuspendAndDelete(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, customer := e.customer()
	_, c := e.operator(control.RoleOperator)
	_, admin := e.operator(control.RoleAdmin)
	var token api.CreatedToken
	c.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/tokens", `{}`).into(t, &token)
	c.want(http.StatusUnprocessableEntity, "POST", "/v1/customers/"+id+"/suspend", `{"reason":" "}`)
	var out control.Customer
	c.want(http.StatusOK, "POST", "/v1/customers/"+id+"/suspend", `{"reason":"abuse"}`).into(t, &out)
	if out.Status != control.CustomerSuspended || e.grantStatus(e.digestOf(token.Token)) != "suspended" {
		t.Errorf("%+v", out)
	}
	customer.want(http.StatusOK, "GET", "/v1/me", nil) // it can still look, and pay
	c.want(http.StatusOK, "POST", "/v1/customers/"+id+"/resume", `{"reason":"sorry"}`)
	if s := e.grantStatus(e.digestOf(token.Token)); s != "active" {
		t.Error(s)
	}
	pending, _ := e.signUp("ada@example.com")
	if a := c.do("POST", "/v1/customers/"+pending.ID+"/resume", `{"reason":"why not"}`); a.problem() != "invalid" || !strings.Contains(string(a.body), "has not paid yet") {
		t.Errorf("%d %s", a.status, a.body)
	}
	var d api.CustomerDetails
	c.want(http.StatusOK, "GET", "/v1/customers/"+id, nil).into(t, &d)
	if d.ID != id || len(d.Boxes) != 1 || len(d.Tokens) != 1 || d.Period == nil {
		t.Errorf("%+v", d)
	}
	// Redis takes nothing: it is saved, and the answer says that it is no more than that.
	full := func(memory string) {
		t.Helper()
		if err := e.redis.ConfigSet(t.Context(), "maxmemory", memory).Err(); err != nil {
			t.Fatal(err)
		}
	}
	e.service.PublishWithin = 300 * time.Millisecond
	full("1")
	if a := c.do("POST", "/v1/customers/"+id+"/suspend", `{"reason":"abuse"}`); a.status != http.StatusAccepted {
		t.Errorf("unpublished: %d %s", a.status, a.body)
	}
	full("0")
	e.service.PublishWithin = 20 * time.Second

	admin.want(http.StatusNoContent, "DELETE", "/v1/customers/"+id, nil)
	if s := e.grantStatus(e.digestOf(token.Token)); s != "revoked" {
		t.Error(s)
	}
	customer.want(http.StatusUnauthorized, "GET", "/v1/me", nil)
	var log api.List[control.AuditEntry]
	c.want(http.StatusOK, "GET", "/v1/audit?customer="+id, nil).into(t, &log)
	var actions []string
	for _, a := range log.Items {
		actions = append(actions, a.Action)
		if a.Action == "customer.suspend" && (a.Detail["reason"] != "abuse" || !strings.HasPrefix(a.Actor, "operator:o")) {
			t.Errorf("%+v", a)
		}
	}
	if got := strings.Join(actions, " "); got != "customer.delete box.destroy customer.suspend customer.resume customer.suspend token.create session.create customer.create" {
		t.Error(got)
	}
}

// The answer to a change of a limit says which proxies apply it, and waits for them.
func TestQuota(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.AwaitApplied = 5 * time.Second })
	id, _ := e.customer()
	_, c := e.operator(control.RoleOperator)
	var token api.CreatedToken
	c.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/tokens", nil).into(t, &token)
	change := func(body string) (q api.QuotaChanged) {
		t.Helper()
		c.want(http.StatusOK, "POST", "/v1/customers/"+id+"/quota", body).into(t, &q)
		return q
	}
	if q := change(`{"action":"set","tokens":500,"reason":"test"}`); q.LimitTokens != 500 || q.Before != 1_000_000 || q.Replicas == nil || !q.Replicas.All || len(q.Replicas.Applied) != 0 {
		t.Errorf("%+v %+v", q, q.Replicas)
	}
	if q := change(`{"action":"add","tokens":-100,"reason":"test"}`); q.LimitTokens != 400 || q.Before != 500 {
		t.Errorf("%+v", q)
	}
	if q := change(`{"action":"reset","reason":"test"}`); q.LimitTokens != 1_000_000 || q.Before != 400 {
		t.Errorf("%+v", q)
	}
	for _, bad := range []string{
		`{"action":"set","tokens":-1,"reason":"x"}`, `{"action":"set","tokens":5}`, `{"action":"add","reason":"x"}`, `{"action":"reset","tokens":5,"reason":"x"}`,
		`{"action":"double","reason":"x"}`, `{"action":"set","tokens":1.5,"reason":"x"}`, `{"action":"set","tokens":9223372036854775807,"reason":"x"}`,
		`{"action":"add","tokens":-9223372036854775808,"reason":"x"}`, `{"action":"set","tokens":1e30,"reason":"x"}`,
	} {
		if a := c.do("POST", "/v1/customers/"+id+"/quota", bad); a.problem() != "invalid" {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	// Two proxies live, of one of which no beat was noted yet; one that was lost and one that is
	// long silent do not count.
	e.pg.Query(`INSERT INTO replicas (id, registered_at, status, lost_at, lost_reason) VALUES
		('ra', now(), 'live', NULL, NULL), ('rb', now(), 'live', NULL, NULL), ('rc', now(), 'lost', now(), 'gone'), ('rd', now() - interval '2 hours', 'live', NULL, NULL)`)
	e.pg.Query(`INSERT INTO replica_beats (replica, life, beat_at, seen_at) VALUES ('ra', 1, now(), now()), ('rc', 1, now(), now()), ('rd', 1, now(), now() - interval '1 hour')`)
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	go func() { // each applies changes a while after they are published
		defer close(done)
		for seq := ""; t.Context().Err() == nil; time.Sleep(time.Millisecond) {
			now, err := e.redis.HGet(t.Context(), contract.FeedStateKey, contract.FeedSeq).Result()
			if err != nil || now == seq {
				continue
			}
			seq = now
			e.redis.HSet(t.Context(), contract.FeedAppliedKey, "ra", seq)
			time.Sleep(100 * time.Millisecond)
			e.redis.HSet(t.Context(), contract.FeedAppliedKey, "rb", seq)
		}
	}()
	q := change(`{"action":"set","tokens":600,"reason":"test"}`)
	if r := q.Replicas; r == nil || !r.All || len(r.Applied) != 2 || r.Applied[0].Replica != "ra" || r.Applied[1].Replica != "rb" ||
		r.TookMS < 90 || r.Applied[0].AfterMS > r.Applied[1].AfterMS {
		t.Errorf("%+v", r)
	}
	// One that does not answer is named, and not waited for for ever.
	e.pg.Query(`INSERT INTO replicas (id, registered_at) VALUES ('re', now())`)
	e.pg.Query(`INSERT INTO replica_beats (replica, life, beat_at, seen_at) VALUES ('re', 1, now(), now())`)
	q = change(`{"action":"set","tokens":700,"reason":"test"}`)
	if r := q.Replicas; r == nil || r.All || len(r.Applied) != 3 || r.Applied[2] != (control.Acknowledgement{Replica: "re"}) || r.TookMS < 4900 {
		t.Errorf("%+v", r)
	}
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE action = 'quota.set' AND detail->>'reason' = 'test'")); n != "5" {
		t.Errorf("%s changes in the audit log", n)
	}
}

func TestLedgerAndPlatform(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, _ := e.customer()
	e.record(id, 3)
	_, c := e.operator(control.RoleOperator)
	_, admin := e.operator(control.RoleAdmin)
	if _, err := e.store.RecordUsage(t.Context(), nil, []control.DeadLetter{
		{StreamID: "1-1", Index: 0, Payload: []byte("rubbish"), Reason: "not an event"}, {StreamID: "1-2", Index: 0, Payload: []byte("more"), Reason: "not an event"},
	}); err != nil {
		t.Fatal(err)
	}
	var dead api.List[control.DeadLetter]
	c.want(http.StatusOK, "GET", "/v1/dead-letters", nil).into(t, &dead)
	if len(dead.Items) != 2 {
		t.Fatalf("%+v", dead)
	}
	path := "/v1/dead-letters/" + strings.TrimSpace(e.pg.Query("SELECT max(id) FROM dead_letters"))
	if a := c.do("POST", path+"/replay", nil); a.problem() != "invalid" || !strings.Contains(string(a.body), "refused again") {
		t.Errorf("%d %s", a.status, a.body)
	}
	admin.want(http.StatusUnprocessableEntity, "POST", path+"/drop", `{"reason":""}`)
	admin.want(http.StatusNoContent, "POST", path+"/drop", `{"reason":"a test"}`)
	admin.want(http.StatusUnprocessableEntity, "POST", path+"/drop", `{"reason":"a test"}`)
	c.want(http.StatusOK, "GET", "/v1/dead-letters", nil).into(t, &dead)
	var all api.List[control.DeadLetter]
	c.want(http.StatusOK, "GET", "/v1/dead-letters?all=true&limit=1", nil).into(t, &all)
	if len(dead.Items) != 1 || len(all.Items) != 1 || all.Next == "" || all.Items[0].DroppedAt.IsZero() {
		t.Errorf("%+v, %+v", dead, all)
	}
	c.want(http.StatusOK, "GET", path, nil)
	c.want(http.StatusNotFound, "GET", "/v1/dead-letters/999999", nil)

	var u api.PlatformUsage
	c.want(http.StatusOK, "GET", "/v1/usage", nil).into(t, &u)
	if len(u.Tiers) != 1 || u.Tiers[0].Totals.Settled != 450 || u.Tiers[0].Customers != 1 {
		t.Errorf("%+v", u)
	}
	var replicas api.List[control.Replica]
	c.want(http.StatusOK, "GET", "/v1/replicas", nil).into(t, &replicas)
	if len(replicas.Items) != 1 {
		t.Errorf("%+v", replicas)
	}
	if _, err := e.store.InsertStripeEvent(t.Context(), control.StripeEvent{
		ID: "evt_1", Type: "invoice.paid", APIVersion: "2023-10-16", CreatedAt: time.Now(), Payload: []byte(`{"email":"ada@example.com"}`),
	}); err != nil {
		t.Fatal(err)
	}
	if b := string(c.want(http.StatusOK, "GET", "/v1/stripe-events", nil).body); !strings.Contains(b, "evt_1") || strings.Contains(b, "ada@") {
		t.Errorf("%s", b)
	}
	c.want(http.StatusNoContent, "POST", "/v1/stripe-events/evt_1/retry", nil, api.KeyHeader, "k")
	if a := c.want(http.StatusNoContent, "POST", "/v1/stripe-events/evt_1/retry", nil, api.KeyHeader, "k"); a.header.Get(api.ReplayedHeader) == "" {
		t.Error("not remembered")
	}
	c.want(http.StatusNotFound, "POST", "/v1/stripe-events/evt_2/retry", `{"again":true}`)

	// Jobs.
	if err := e.store.InTx(t.Context(), func(tx *store.Tx) error { return e.jobs.RevokeTokenAt(t.Context(), tx, "none", time.Now()) }); err != nil {
		t.Fatal(err)
	}
	var jobs api.List[control.Job]
	c.want(http.StatusOK, "GET", "/v1/jobs", nil).into(t, &jobs)
	if len(jobs.Items) != 2 || jobs.Items[1].Kind != "box" || jobs.Items[0].Kind != "token_revocation" || jobs.Items[0].State != "scheduled" {
		t.Fatalf("%+v", jobs)
	}
	job := "/v1/jobs/" + strings.TrimSpace(e.pg.Query("SELECT max(id) FROM river_job"))
	if a := c.do("POST", job+"/cancel", nil); a.problem() != "invalid" || !strings.Contains(string(a.body), "it revokes a token") {
		t.Errorf("the end of a token is cancelled: %d %s", a.status, a.body)
	}
	e.pg.Query("INSERT INTO river_job (kind, args, max_attempts, queue, state, scheduled_at) VALUES ('mail', '{}', 5, 'default', 'scheduled', now() + interval '1 day')")
	job = "/v1/jobs/" + strings.TrimSpace(e.pg.Query("SELECT max(id) FROM river_job"))
	c.want(http.StatusNoContent, "POST", job+"/cancel", nil)
	c.want(http.StatusOK, "GET", "/v1/jobs?state=cancelled", nil).into(t, &jobs)
	if len(jobs.Items) != 1 {
		t.Errorf("%+v", jobs)
	}
	c.want(http.StatusNoContent, "POST", job+"/retry", nil)
	c.want(http.StatusNotFound, "POST", "/v1/jobs/999999/retry", nil)
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE action LIKE 'job.%' AND actor LIKE 'operator:%'")); n != "4" {
		t.Errorf("%s entries", n)
	}
}

// tooLate has Redis say what replicas have applied just when nobody waits for it any more.
type tooLate struct{}

func (tooLate) DialHook(next redis.DialHook) redis.DialHook { return next }
func (tooLate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (tooLate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "hmget" || cmd.Args()[1] != contract.FeedAppliedKey {
			return next(ctx, cmd)
		}
		deadline, _ := ctx.Deadline()
		time.Sleep(time.Until(deadline) - 5*time.Millisecond)
		for time.Now().Before(deadline) { // as exactly as the network does
		}
		cmd.SetErr(os.ErrDeadlineExceeded)
		return cmd.Err()
	}
}

// A change whose time to be applied ends while Redis is asked about it is answered as any other
// that is not applied in time: with the proxies that are waited for.
func TestQuotaWhenTheTimeEndsWithinACall(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.AwaitApplied = 2 * time.Second })
	e.redis.AddHook(tooLate{})
	id, _ := e.customer()
	_, c := e.operator(control.RoleOperator)
	c.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/tokens", nil) // or there is nothing to apply
	e.pg.Query(`INSERT INTO replicas (id, registered_at) VALUES ('ra', now())`)
	for range 3 {
		var q api.QuotaChanged
		c.want(http.StatusOK, "POST", "/v1/customers/"+id+"/quota", `{"action":"set","tokens":5,"reason":"test"}`).into(t, &q)
		if r := q.Replicas; r == nil || r.All || len(r.Applied) != 1 || r.Applied[0] != (control.Acknowledgement{Replica: "ra"}) {
			t.Fatalf("%+v", r)
		}
	}
}
