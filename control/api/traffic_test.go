package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// announce has a proxy say what passes through it.
func (e *env) announce(replica string, v any) {
	e.t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = e.redis.Set(e.t.Context(), contract.TrafficKey(replica), text, 0).Err() // however slow the test is
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// traffic reads events until one is as it should be.
func (s *stream) traffic(what string, ok func(api.Traffic) bool) api.Traffic {
	s.t.Helper()
	var v api.Traffic
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); {
		v = api.Traffic{}
		if s.next("traffic", &v); ok(v) {
			return v
		}
	}
	s.t.Fatalf("never seen: %s; the last was %+v", what, v)
	return v
}

func about(got, want float64) bool { return math.Abs(got-want) < 1e-9 }

// What proxies announce is added up, and what one of them counts becomes rates; who announces
// nothing is named.
func TestTraffic(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	// rb is of a build that announces nothing, rc is lost, rd has been silent for long, and re is not on the register any more.
	e.pg.Query(`INSERT INTO replicas (id, registered_at, status, lost_at, lost_reason) VALUES
		('ra', now() - interval '2 hours', 'live', NULL, NULL), ('rb', now() - interval '2 hours', 'live', NULL, NULL), ('rc', now() - interval '2 hours', 'lost', now(), 'gone'),
		('rd', now() - interval '2 hours', 'live', NULL, NULL), ('re', NULL, 'live', NULL, NULL)`)
	e.pg.Query(`INSERT INTO replica_beats (replica, life, beat_at, seen_at) VALUES ('rb', 1, now(), now() + interval '1 hour'), ('rd', 1, now(), now() - interval '1 hour')`)
	said := contract.Traffic{Started: 1000, Uptime: 1000, InFlight: 3, Streams: 2, Answered: 10, Tokens: 100, Refused: map[contract.RefusalClass]int64{contract.RefusedRate: 1}}
	e.announce("ra", said)
	e.announce("rc", said)
	e.announce("re", said)
	_, c := e.operator(control.RoleSupport)
	s, a := c.streamOf("/v1/traffic")
	if s == nil || a.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var v api.Traffic
	if s.next("traffic", &v); v.InFlight != 3 || v.Streams != 2 || v.Rates != nil || len(v.Proxies) != 1 || v.Proxies[0].ID != "ra" || v.Proxies[0].Started.UnixMilli() != 1000 ||
		!slices.Equal(v.Silent, []string{"rd"}) || !slices.Equal(v.Untold, []string{"rb"}) {
		t.Errorf("at first %+v", v)
	}

	said.Uptime, said.InFlight, said.Answered, said.Tokens = 3000, 5, 30, 1100
	said.Refused = map[contract.RefusalClass]int64{contract.RefusedRate: 5, contract.RefusedQuota: 2, "of a newer build": 9}
	e.announce("ra", said)
	v = s.traffic("rates", func(v api.Traffic) bool { return v.InFlight == 5 })
	if r := v.Rates; r == nil || !about(r.Answered, 10) || !about(r.Tokens, 500) || len(r.Refused) != 2 || !about(r.Refused[contract.RefusedRate], 2) || !about(r.Refused[contract.RefusedQuota], 1) {
		t.Errorf("after two seconds %+v", r)
	}

	// Another build leaves fields out, and has others. Sums are over both.
	e.announce("rb", map[string]int64{"started": 5, "uptime_ms": 100, "in_flight": 4, "of a newer build": 1})
	v = s.traffic("the other proxy", func(v api.Traffic) bool { return len(v.Proxies) == 2 })
	if v.InFlight != 9 || v.Streams != 2 || v.Rates == nil || !about(v.Rates.Answered, 10) || v.Proxies[1].Rates != nil || len(v.Untold) != 0 {
		t.Errorf("with another build %+v", v)
	}
	e.announce("rb", map[string]int64{"started": 5, "uptime_ms": 600, "answered": 1})
	v = s.traffic("its rates", func(v api.Traffic) bool { return len(v.Proxies) == 2 && v.Proxies[1].Rates != nil })
	if v.InFlight != 5 || !about(v.Rates.Answered, 12) || !about(v.Rates.Refused[contract.RefusedRate], 2) {
		t.Errorf("over both %+v", v.Rates)
	}

	// What was longer ago than ten seconds is not in the rates any more.
	said.Uptime = 14_000
	e.announce("ra", said)
	s.traffic("nothing for long", func(v api.Traffic) bool { return len(v.Proxies) == 2 && v.Proxies[0].Rates == nil })
	said.Uptime, said.Answered = 16_000, 31
	e.announce("ra", said)
	s.traffic("one in two seconds", func(v api.Traffic) bool { return v.Proxies[0].Rates != nil && about(v.Proxies[0].Rates.Answered, 0.5) })

	// One that was started anew counts from nothing, and what cannot be read keeps no other away.
	e.announce("ra", contract.Traffic{Started: 9000, Uptime: 20_000, InFlight: 1})
	e.announce("rb", "no announcement")
	v = s.traffic("a new start", func(v api.Traffic) bool { return v.InFlight == 1 })
	if len(v.Proxies) != 1 || v.Rates != nil || !slices.Equal(v.Untold, []string{"rb"}) {
		t.Errorf("after a new start %+v", v)
	}
	if err := e.redis.Del(t.Context(), contract.TrafficKey("ra")).Err(); err != nil {
		t.Fatal(err)
	}
	// It is known for two hours and was never heard of.
	s.traffic("silence", func(v api.Traffic) bool { return len(v.Proxies) == 0 && slices.Equal(v.Silent, []string{"ra", "rd"}) })

	for range 3 {
		if s, a := c.streamOf("/v1/traffic"); s == nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if s, a := c.streamOf("/v1/traffic"); s != nil || a.problem() != "too-many-requests" {
		t.Errorf("a fifth stream: %d %s", a.status, a.body)
	}
	e.Drain()
	if err := s.end(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

// Who looks while Postgres hangs sees the traffic of the proxies that were known before.
func TestTrafficWhilePostgresHangs(t *testing.T) {
	t.Parallel()
	pg := storetest.DedicatedPostgres(t)
	e := newEnvOn(t, pg, nil)
	pg.Query("INSERT INTO replicas (id, registered_at, status) VALUES ('ra', now(), 'live')")
	e.announce("ra", contract.Traffic{Started: 1, Uptime: 1000, InFlight: 1})
	_, c := e.operator(control.RoleSupport)
	s, a := c.streamOf("/v1/traffic")
	if s == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.traffic("at first", func(v api.Traffic) bool { return v.InFlight == 1 })
	pg.Pause()
	defer pg.Resume()
	e.announce("ra", contract.Traffic{Started: 1, Uptime: 2000, InFlight: 2})
	s.traffic("while Postgres hangs", func(v api.Traffic) bool { return v.InFlight == 2 })
}

// switched is a LiveUsage that can be away.
type switched struct {
	api.LiveUsage
	away atomic.Bool
}

func (s *switched) Traffic(ctx context.Context, replicas []string) (map[string]contract.Traffic, error) {
	if s.away.Load() {
		return nil, quota.ErrUnavailable
	}
	return s.LiveUsage.Traffic(ctx, replicas)
}

// While Redis is away who looks is told so, once, and sees the traffic when it is back.
func TestTrafficWithoutRedis(t *testing.T) {
	t.Parallel()
	live := &switched{}
	e := newEnv(t, func(o *api.Options) {
		live.LiveUsage = o.Live
		o.Live = live
	})
	_, c := e.operator(control.RoleAdmin)
	s, a := c.streamOf("/v1/traffic")
	if s == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.next("traffic", &api.Traffic{})
	live.away.Store(true)
	s.next("away", &struct{}{})
	s.next("", nil) // a heartbeat: nothing else is sent
	if s, a := c.streamOf("/v1/traffic"); s != nil || a.status != http.StatusServiceUnavailable || a.problem() != "unavailable" {
		t.Errorf("while Redis is away: %d %s", a.status, a.body)
	}
	live.away.Store(false)
	s.next("traffic", &api.Traffic{})

	none := newEnv(t, func(o *api.Options) { o.Live = nil })
	_, c = none.operator(control.RoleAdmin)
	if s, a := c.streamOf("/v1/traffic"); s != nil || a.problem() != "unavailable" {
		t.Errorf("without Redis: %d %s", a.status, a.body)
	}
}
