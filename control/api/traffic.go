package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// registerWithin is how long Postgres may take to say which proxies there are.
const registerWithin = newsWithin / 2

// ratesOver is the time over which rates are taken, as soon as so much of it was seen.
const ratesOver = 10 * time.Second

// Traffic is what passes through all proxies at a moment, as they announce it themselves.
type Traffic struct {
	At       time.Time      `json:"at"`
	InFlight int64          `json:"in_flight" doc:"Requests between authentication and the end of their answer."`
	Streams  int64          `json:"streams" doc:"Those of them whose answer comes as events."`
	Rates    *TrafficRates  `json:"rates,omitempty" doc:"Left out until a proxy was heard of twice."`
	Proxies  []ProxyTraffic `json:"proxies" doc:"Those that the sums are of."`
	Silent   []string       `json:"silent" doc:"Proxies on the register that announce nothing and show no sign of life: nothing of them is in the sums."`
	Untold   []string       `json:"untold" doc:"Proxies that were heard of lately and do not announce what passes through them, since they are ending or of an older build: nothing of them is in the sums."`
}

// ProxyTraffic is what passes through one proxy.
type ProxyTraffic struct {
	ID       string        `json:"id"`
	Started  time.Time     `json:"started_at"`
	InFlight int64         `json:"in_flight"`
	Streams  int64         `json:"streams"`
	Rates    *TrafficRates `json:"rates,omitempty" doc:"Left out until it was heard of twice."`
}

// TrafficRates are averages over the last ten seconds, or over as much of them as was seen.
type TrafficRates struct {
	Answered float64                           `json:"answered_per_second" doc:"Requests that an upstream has seen and that have ended, however."`
	Tokens   float64                           `json:"tokens_per_second" doc:"Prompt and completion, as counted when a request ended; not weighted."`
	Refused  map[contract.RefusalClass]float64 `json:"refused_per_second" doc:"By why: auth, rate, quota, overload, upstream, request. A class without any is left out. Requests of class upstream may be among the answered."`
}

func (r *TrafficRates) add(o *TrafficRates) {
	r.Answered += o.Answered
	r.Tokens += o.Tokens
	for class, n := range o.Refused {
		r.Refused[class] += n
	}
}

// trafficWatch is one look after another at what the proxies announce: rates are differences.
// It is of one stream, so that any process can serve any stream.
type trafficWatch struct {
	a    *API
	seen map[string][]contract.Traffic // of each proxy within ratesOver, oldest first

	replicas []control.Replica // as they were known last: who looks at a trouble of Postgres' sees the traffic too
	known    bool
}

// look reads what passes through the proxies now.
func (w *trafficWatch) look(ctx context.Context) (Traffic, error) {
	// Of the time that there is Postgres takes a part only: Redis is asked though it hangs.
	asking, cancel := context.WithTimeout(ctx, registerWithin)
	list, err := w.a.o.Store.Replicas(asking, maxPageLen)
	cancel()
	switch {
	case err == nil:
		w.replicas, w.known = list, true
	case !w.known:
		return Traffic{}, err
	}
	now := w.a.now()
	var ids []string
	for _, r := range w.replicas {
		if registered(r) {
			ids = append(ids, r.ID)
		}
	}
	announced, err := w.a.o.Live.Traffic(ctx, ids)
	if err != nil {
		return Traffic{}, err
	}
	return w.sum(now, announced), nil
}

// sum makes a picture of what was announced.
func (w *trafficWatch) sum(now time.Time, announced map[string]contract.Traffic) Traffic {
	t := Traffic{At: now, Proxies: []ProxyTraffic{}, Silent: []string{}, Untold: []string{}}
	seen := map[string][]contract.Traffic{}
	for _, r := range w.replicas {
		if !registered(r) {
			continue
		}
		said, ok := announced[r.ID]
		switch {
		case ok:
		case now.Sub(lastHeard(r)) >= aliveFor:
			t.Silent = append(t.Silent, r.ID)
			continue
		default:
			t.Untold = append(t.Untold, r.ID)
			continue
		}
		seen[r.ID] = within(append(w.seen[r.ID], said))
		p := ProxyTraffic{ID: r.ID, Started: time.UnixMilli(said.Started).UTC(), InFlight: said.InFlight, Streams: said.Streams, Rates: rates(seen[r.ID])}
		t.Proxies = append(t.Proxies, p)
		t.InFlight += p.InFlight
		t.Streams += p.Streams
		if p.Rates != nil {
			if t.Rates == nil {
				t.Rates = &TrafficRates{Refused: map[contract.RefusalClass]float64{}}
			}
			t.Rates.add(p.Rates)
		}
	}
	w.seen = seen
	slices.SortFunc(t.Proxies, func(a, b ProxyTraffic) int { return strings.Compare(a.ID, b.ID) })
	slices.Sort(t.Silent)
	slices.Sort(t.Untold)
	return t
}

// within keeps of the announcements of a proxy those that rates can be taken of: of the present
// run, in their order, the oldest not much longer ago than ratesOver.
func within(seen []contract.Traffic) []contract.Traffic {
	last := seen[len(seen)-1]
	kept := make([]contract.Traffic, 0, len(seen))
	for i, t := range seen {
		fresh := last.Uptime-t.Uptime <= ratesOver.Milliseconds() || i == len(seen)-1
		if t.Started == last.Started && fresh && (len(kept) == 0 || t.Uptime > kept[len(kept)-1].Uptime) {
			kept = append(kept, t)
		}
	}
	return kept
}

// rates are nil where there is only one announcement.
func rates(seen []contract.Traffic) *TrafficRates {
	first, last := &seen[0], &seen[len(seen)-1]
	seconds := float64(last.Uptime-first.Uptime) / 1000
	if seconds <= 0 {
		return nil
	}
	perSecond := func(before, after int64) float64 { return float64(max(after-before, 0)) / seconds }
	r := &TrafficRates{
		Answered: perSecond(first.Answered, last.Answered), Tokens: perSecond(first.Tokens, last.Tokens),
		Refused: map[contract.RefusalClass]float64{},
	}
	// What a newer proxy calls otherwise is of no class that a page knows.
	for _, class := range contract.RefusalClasses() {
		if n := perSecond(first.Refused[class], last.Refused[class]); n > 0 {
			r.Refused[class] = n
		}
	}
	return r
}

// streamTraffic tells operators what passes through the proxies, again and again. While Redis
// does not answer it says so once, and goes on when it does.
func (a *API) streamTraffic(c *call) error {
	if a.o.Live == nil {
		return notHere("Redis")
	}
	end, err := a.follows.begin(c.actor())
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(c.ctx(), accessFor)
	defer cancel()
	go a.whileWelcome(ctx, cancel, c)
	watch := &trafficWatch{a: a}
	away := false
	next := func(ctx context.Context) ([]byte, error) {
		timed, cancel := context.WithTimeout(ctx, newsWithin)
		defer cancel()
		t, err := watch.look(timed)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(t) // on one line
		if err != nil {
			return nil, fmt.Errorf("stream of the traffic: %w", err)
		}
		away = false
		return fmt.Appendf(nil, "event: traffic\ndata: %s\n\n", data), nil
	}
	first, err := next(ctx)
	if err != nil {
		return err // an answer has not begun
	}
	return a.sendEvents(ctx, c, first, func(ctx context.Context) ([]byte, error) {
		b, err := next(ctx)
		if err != nil && !away {
			away = true
			a.o.Logger.Debug("no traffic to tell of", "error", err)
			return []byte("event: away\ndata: {}\n\n"), nil
		}
		return b, nil
	})
}
