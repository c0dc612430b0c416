package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// record writes usage events of a customer, 150 tokens each.
func (e *env) record(customer string, n int) {
	e.t.Helper()
	p, err := e.store.PeriodAt(e.t.Context(), customer, time.Now())
	if err != nil {
		e.t.Fatal(err)
	}
	replica := control.NewID("r")
	list := make([]control.Delivery, n)
	for i := range list {
		seq := int64(i + 1)
		list[i] = control.Delivery{StreamID: "1-1", Index: i, Payload: []byte("{}"), Event: contract.Event{
			Replica: replica, Seq: seq, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: p.ID,
			RequestID: fmt.Sprintf("req-%s-%d", replica, seq), CustomerID: customer, BoxID: "b1", TokenID: "t1", Tier: "starter",
			ModelAsked: "k2", ModelServed: "kimi-k2", Face: contract.FaceOpenAI, Upstream: "sim",
			Prompt: 100, Cached: 10, Completion: 50, Reasoning: 5, Settled: 150, Reserved: 200,
			Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200, TTFBMicros: 1000, DurationMicros: 2000,
		}}
	}
	r, err := e.store.RecordUsage(e.t.Context(), list, nil)
	if err != nil || r.Inserted != n {
		e.t.Fatalf("%+v, %v", r, err)
	}
}

// What is one customer's is not there for another one, whatever it asks for.
func crossCustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	aID, a := e.customer()
	bID, b := e.customer()
	e.record(aID, 3)
	a.want(http.StatusOK, "PATCH", "/v1/me", `{"name":"Private to A"}`)
	var keyOfA api.CreatedAPIKey
	a.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "Key of A"}).into(t, &keyOfA)

	if r := b.do("DELETE", "/v1/me/api-keys/"+keyOfA.ID, nil); r.problem() != "not-found" {
		t.Errorf("B revokes A's key: %d %s", r.status, r.body)
	}
	keyOf := &client{t: t, base: e.customers, cookies: map[string]string{}, header: http.Header{"Authorization": {"Bearer " + keyOfA.Key}}}
	keyOf.want(http.StatusOK, "GET", "/v1/me", nil)
	for _, path := range []string{"/v1/me", "/v1/me/boxes", "/v1/me/usage", "/v1/me/export", "/v1/me/api-keys", "/v1/session"} {
		for _, as := range []string{"", "?customer=" + aID, "?customer_id=" + aID} {
			body := string(b.want(http.StatusOK, "GET", path+as, nil, "X-Customer-Id", aID).body)
			if strings.Contains(body, aID) || strings.Contains(body, "Private to A") || strings.Contains(body, keyOfA.ID) || strings.Contains(body, "kimi-k2") {
				t.Errorf("%s shows B what is A's: %s", path+as, body)
			}
		}
	}
	if r := b.do("PATCH", "/v1/me", `{"id":"`+aID+`","name":"Taken"}`); r.problem() != "invalid" {
		t.Errorf("%d %s", r.status, r.body)
	}
	// Deleting B is of no consequence to A.
	b.want(http.StatusNoContent, "DELETE", "/v1/me", nil)
	var p api.Profile
	a.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &p)
	if p.Name != "Private to A" || p.ID == bID {
		t.Errorf("%+v", p)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	e.record(id, 4)
	var u api.Usage
	c.want(http.StatusOK, "GET", "/v1/me/usage", nil).into(t, &u)
	for deadline := time.Now().Add(20 * time.Second); u.Period != nil && !u.Period.Live && time.Now().Before(deadline); { // Redis may be slow once
		c.want(http.StatusOK, "GET", "/v1/me/usage", nil).into(t, &u)
	}
	if u.Period == nil || u.Period.Used != 600 || u.Period.Left != 1_000_000-600 || u.Period.LimitTokens != 1_000_000 || !u.Period.Live {
		t.Errorf("period %+v", u.Period)
	}
	if len(u.Days) != 1 || u.Days[0].Requests != 4 || u.Days[0].Settled != 600 || u.Days[0].Model != "kimi-k2" {
		t.Errorf("days %+v", u.Days)
	}
	day := time.Now().UTC().Truncate(24 * time.Hour)
	at := func(from, to time.Time) string {
		return "/v1/me/usage?from=" + from.Format(time.RFC3339) + "&to=" + to.Format(time.RFC3339)
	}
	c.want(http.StatusOK, "GET", at(day.AddDate(0, 0, -10), day.AddDate(0, 0, -9)), nil).into(t, &u)
	if len(u.Days) != 0 {
		t.Errorf("days %+v", u.Days)
	}
	for _, bad := range []string{at(day, day), at(day, day.AddDate(-1, 0, 0)), at(day.AddDate(-3, 0, 0), day), "/v1/me/usage?from=2026-01-01T00:00:00Z", "/v1/me/usage?from=yesterday&to=today"} {
		if a := c.do("GET", bad, nil); a.problem() != "invalid" {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	// One that has not paid has no period, and used nothing.
	_, pending := e.signUp("ada@example.com")
	var none api.Usage
	pending.want(http.StatusOK, "GET", "/v1/me/usage", nil).into(t, &none)
	if none.Period != nil || len(none.Days) != 0 || none.From.IsZero() {
		t.Errorf("%+v", none)
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	c.apiKey()
	e.record(id, 250)
	a := c.want(http.StatusOK, "GET", "/v1/me/export", nil)
	var x api.Export
	a.into(t, &x)
	if x.Account.ID != id || len(x.Events) != 250 || len(x.APIKeys) != 1 || len(x.Boxes) != 1 || len(x.Periods) != 1 || len(x.Audit) == 0 {
		t.Errorf("%+v", x.CustomerData)
	}
	if !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("%v", a.header)
	}
	for range 2 {
		c.want(http.StatusOK, "GET", "/v1/me/export", nil)
	}
	if a := c.do("GET", "/v1/me/export", nil); a.problem() != "too-many-requests" {
		t.Errorf("%d %s", a.status, a.body)
	}
	empty, d := e.signUp("ada@example.com")
	d.want(http.StatusOK, "GET", "/v1/me/export", nil).into(t, &x)
	if x.Account.ID != empty.ID || len(x.Events) != 0 || x.Account.Email != "ada@example.com" {
		t.Errorf("%+v", x.Account)
	}
}

func TestDeleteMe(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	e := newEnv(t, func(o *api.Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	id, c := e.customer()
	key := c.apiKey()
	raw, token, err := e.service.CreateToken(t.Context(), "test", id, "")
	if err != nil || raw.Reveal() == "" {
		t.Fatal(err)
	}
	e.pg.Query(`INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
		VALUES ('sub_1', '` + id + `', 'active', 'starter', now(), now() + interval '1 month', now())`)
	if a := c.do("DELETE", "/v1/me", nil); a.problem() != "conflict" || !strings.Contains(string(a.body), "Cancel the subscription first") {
		t.Errorf("%d %s", a.status, a.body)
	}
	e.pg.Query(`UPDATE subscriptions SET status = 'canceled'`)
	ahead.Store(int64(16 * time.Minute))
	if a := c.do("DELETE", "/v1/me", nil); a.problem() != "sign-in-again" {
		t.Errorf("an old session: %d %s", a.status, a.body)
	}
	c = e.signedIn(control.Subject{Kind: control.SubjectCustomer, ID: id})
	c.want(http.StatusNoContent, "DELETE", "/v1/me", nil)
	c.want(http.StatusUnauthorized, "GET", "/v1/me", nil)
	key.want(http.StatusUnauthorized, "GET", "/v1/me", nil)
	b, err := e.redis.Get(t.Context(), contract.GrantKey(token.Digest)).Bytes()
	if err != nil || !strings.Contains(string(b), `"status":"revoked"`) {
		t.Errorf("the proxies know %s, %v", b, err)
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	key := c.apiKey()
	key.want(http.StatusOK, "GET", "/v1/me/usage", nil)
	var list api.List[control.APIKey]
	c.want(http.StatusOK, "GET", "/v1/me/api-keys", nil).into(t, &list)
	if len(list.Items) != 1 || list.Items[0].Hint == "" || list.Items[0].LastUsedAt.IsZero() {
		t.Fatalf("%+v", list)
	}
	for range 2 { // for ever, and again
		c.want(http.StatusNoContent, "DELETE", "/v1/me/api-keys/"+list.Items[0].ID, nil)
		key.want(http.StatusUnauthorized, "GET", "/v1/me/usage", nil)
	}
	for i := range 21 {
		want := http.StatusCreated
		if i == 20 {
			want = http.StatusConflict
		}
		c.want(want, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "many"})
	}
}

// stream is an open event stream.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	r    *bufio.Reader
}

func (c *client) stream() (*stream, answer) {
	c.t.Helper()
	return c.streamOf("/v1/me/events")
}

func (c *client) streamOf(path string) (*stream, answer) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	c.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", c.base+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range c.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		return nil, answer{res.StatusCode, res.Header, b}
	}
	return &stream{c.t, res.Body, bufio.NewReader(res.Body)}, answer{res.StatusCode, res.Header, nil}
}

// next reads up to the next event of that name, or comment with "", and decodes it.
func (s *stream) next(name string, v any) {
	s.t.Helper()
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			s.t.Fatalf("no event %q: %v", name, err)
		}
		if name == "" && strings.HasPrefix(line, ":") {
			return
		}
		if name != "" && line == "event: "+name+"\n" {
			data, err := s.r.ReadString('\n')
			if err != nil || !strings.HasPrefix(data, "data: ") {
				s.t.Fatalf("%q, %v", data, err)
			}
			if err := json.Unmarshal([]byte(data[6:]), v); err != nil {
				s.t.Fatal(err)
			}
			return
		}
	}
}

func (s *stream) end() error {
	for {
		if _, err := s.r.ReadString('\n'); err != nil {
			return err
		}
	}
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	s, a := c.stream()
	if s == nil || a.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%+v", a)
	}
	var profile api.Profile
	var usage api.PeriodUsage
	var boxes []control.BoxDetail
	s.next("account", &profile)
	s.next("usage", &usage)
	s.next("boxes", &boxes)
	if profile.ID != id || usage.Used != 0 || len(boxes) != 1 || boxes[0].State != control.BoxPending {
		t.Errorf("%+v %+v %+v", profile, usage, boxes)
	}
	s.next("", nil) // a heartbeat
	e.record(id, 2)
	for usage.Used != 300 { // it is also told when Redis is slow to say what is used
		s.next("usage", &usage)
	}
	// Each step of what is done to a box is seen as it begins and as it ends.
	report := func(state control.BoxState, steps ...control.BoxStep) {
		t.Helper()
		if err := e.store.InTx(t.Context(), func(tx *store.Tx) error {
			_, _, err := tx.ReportBox(t.Context(), "test", control.BoxReport{BoxID: boxes[0].ID, Generation: 1, State: state, Steps: steps})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		s.next("boxes", &boxes)
	}
	step := control.BoxStep{Name: "namespace", StartedAt: time.Now().UTC()}
	if report(control.BoxProvisioning, step); boxes[0].State != control.BoxProvisioning || len(boxes[0].Steps) != 1 || !boxes[0].Steps[0].FinishedAt.IsZero() {
		t.Errorf("%+v", boxes)
	}
	step.FinishedAt = step.StartedAt.Add(time.Second)
	if report(control.BoxProvisioning, step); len(boxes[0].Steps) != 1 || boxes[0].Steps[0].FinishedAt.IsZero() {
		t.Errorf("%+v", boxes)
	}
	// What is wrong with it is told by its kind too.
	if err := e.store.InTx(t.Context(), func(tx *store.Tx) error {
		_, _, err := tx.ReportBox(t.Context(), "test", control.BoxReport{BoxID: boxes[0].ID, Generation: 1, State: control.BoxProvisioning, Message: control.BoxImage.Text(), Steps: []control.BoxStep{step}})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if s.next("boxes", &boxes); boxes[0].Trouble != control.BoxImage {
		t.Errorf("%+v", boxes)
	}
	if report(control.BoxActive); boxes[0].State != control.BoxActive || boxes[0].Observed != 1 {
		t.Errorf("%+v", boxes)
	}
	for range 3 {
		if s, a := c.stream(); s == nil {
			t.Fatalf("%+v", a)
		}
	}
	if s, a := c.stream(); s != nil || a.problem() != "too-many-requests" {
		t.Errorf("a fifth stream: %d %s", a.status, a.body)
	}
	// Who goes makes room.
	_ = s.body.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s, _ = c.stream(); s != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a stream that was closed still counts")
		}
	}
	e.Drain()
	if err := s.end(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestProfileAndMoney(t *testing.T) {
	t.Parallel()
	money := &payments{}
	e := newEnv(t, func(o *api.Options) { o.Billing = money })
	account, c := e.signUp("ada@example.com")
	var p api.Profile
	c.want(http.StatusOK, "PATCH", "/v1/me", `{"language":"pt-BR"}`).into(t, &p)
	if p.Language != control.Portuguese || p.Name != "Ada" || p.Status != control.CustomerPending || p.Subscription != nil {
		t.Errorf("%+v", p)
	}
	var l api.Link
	c.want(http.StatusOK, "POST", "/v1/me/checkout", `{"tier":"pro"}`, api.KeyHeader, "buy1").into(t, &l)
	if l.URL != "https://pay.example/"+account.ID+"/pro" {
		t.Errorf("%s", l.URL)
	}
	c.want(http.StatusOK, "POST", "/v1/me/checkout", `{"tier":"pro"}`, api.KeyHeader, "buy1").into(t, &l)
	if money.checkouts != 1 {
		t.Errorf("%d checkouts", money.checkouts)
	}
	if a := c.do("POST", "/v1/me/checkout", `{"tier":"gold"}`); a.problem() != "invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := c.do("POST", "/v1/me/portal", nil); a.problem() != "conflict" {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.want(http.StatusOK, "GET", "/v1/me/invoices", nil)
	// Who has no subscription is told so, and payments are not asked.
	for route, body := range map[string]any{"POST /tier": api.Purchase{Tier: "pro"}, "POST /cancel": nil, "POST /resume": nil, "PUT /overage": api.Overage{CapCents: 1}} {
		method, path, _ := strings.Cut(route, " ")
		if a := c.do(method, "/v1/me/subscription"+path, body); a.problem() != "conflict" {
			t.Errorf("%s: %d %s", route, a.status, a.body)
		}
	}
	var tiers api.List[api.TierView]
	newClient(t, e.customers).want(http.StatusOK, "GET", "/v1/tiers", nil).into(t, &tiers)
	if len(tiers.Items) != 3 || tiers.Items[0].Name != "starter" || tiers.Items[0].PriceCents != 1900 {
		t.Errorf("%+v", tiers)
	}
}

// payments is a Billing for which nobody has bought anything.
type payments struct {
	api.Billing
	checkouts int
}

func (p *payments) CheckoutURL(_ context.Context, customer, tier string) (string, error) {
	p.checkouts++
	return "https://pay.example/" + customer + "/" + tier, nil
}

func (p *payments) PortalURL(context.Context, string) (string, error) { return "", control.ErrInvalid }

func (p *payments) Invoices(context.Context, string, int) ([]control.Invoice, error) { return nil, nil }
