package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// What the api answers to a change of a limit is so: when it says that all proxies apply it,
// each of them does.
func TestQuotaIsAppliedWhenTheAPISaysSo(t *testing.T) {
	const replicas = 3
	s := stack.New(t, stack.Options{Replicas: replicas})
	p := newPlatform(t, s, unbound)
	tok := p.customer("Quot", 1_000_000)
	a, err := api.New(api.Options{
		Store: p.Store, Customers: p.Service, Hasher: p.Hasher, Secret: []byte(strings.Repeat("fake", 8)), Issuer: "http://127.0.0.1",
		Logger: slog.New(slog.DiscardHandler), Feed: feed.NewPublisher(s.Redis.UniversalClient()),
		PerAccount: api.Rate{PerSecond: 1000, Burst: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a.Operators())
	t.Cleanup(server.Close)
	const password = "correct horse battery staple"
	o, err := api.MakeOperator("ops@example.com", control.RoleOperator, password, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Store.InTx(t.Context(), func(tx *store.Tx) error { return tx.InsertOperator(t.Context(), "test", o) }); err != nil {
		t.Fatal(err)
	}
	access := ""
	post := func(path, body string, into any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-OpenClaw-CSRF", "1")
		if access != "" {
			r.Header.Set("Authorization", "Bearer "+access)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(b, into) != nil {
			t.Fatalf("%s %s, %v", res.Status, b, err)
		}
	}
	var in api.SignedIn
	post("/v1/session", fmt.Sprintf(`{"email":"ops@example.com","password":%q,"tokens":true}`, password), &in)
	access = in.AccessToken

	var slowest float64
	for round := range full(5, 100) {
		limit := int64(0)
		if round%2 == 1 {
			limit = 1_000_000
		}
		var q api.QuotaChanged
		post("/v1/customers/"+tok.Customer+"/quota", fmt.Sprintf(`{"action":"set","tokens":%d,"reason":"test"}`, limit), &q)
		if q.Replicas == nil || !q.Replicas.All || len(q.Replicas.Applied) != replicas || q.Replicas.TookMS >= float64(aSecond().Milliseconds()) {
			t.Fatalf("round %d: %+v", round, q.Replicas)
		}
		slowest = max(slowest, q.Replicas.TookMS)
		for i, proxy := range s.Proxies {
			if got := ask(proxy, tok.Raw); (got == http.StatusOK) != (limit > 0) {
				t.Errorf("round %d: proxy %d answers %d under a limit of %d", round, i, got, limit)
			}
		}
	}
	t.Logf("applied by %d proxies after at most %.1f ms", replicas, slowest)
}
