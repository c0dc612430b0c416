package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	// perCustomer is how many event streams a customer may have.
	perCustomer = 4
	// mostFollows is how many streams operators may have, of logs and of the traffic; perCustomer
	// of them one operator.
	mostFollows = 100
	// checkEvery is how often a stream looks whether its session has ended.
	checkEvery = 30 * time.Second
	// writeWithin is how long a client of a stream may take nothing.
	writeWithin = 10 * time.Second
	// newsWithin is how long an event stream looks for something new.
	newsWithin = 5 * time.Second
	// exportWithin bounds an export: Postgres ends a statement then.
	exportWithin = time.Minute
	// exportsAtOnce is how many exports there may be: each keeps a connection to Postgres for
	// as long as its client takes.
	exportsAtOnce = 2
)

// streams counts event streams.
type streams struct {
	most int

	mu    sync.Mutex
	total int
	open  map[string]int // by customer; none is 0
}

func (s *streams) begin(id string) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[id] >= perCustomer {
		return nil, tooMany(time.Minute, fmt.Sprintf("There are %d event streams of this account.", perCustomer))
	}
	if s.total >= s.most {
		return nil, &failure{kind: kindUnavailable(), detail: "There are too many event streams.", retryAfter: 10 * time.Second}
	}
	s.total++
	s.open[id]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.open[id]--; s.open[id] == 0 {
			delete(s.open, id)
		}
	}, nil
}

// streamEvents polls Postgres for one customer: any process can serve any stream, none is
// told of changes, and nothing can be missed.
func (a *API) streamEvents(c *call) error {
	end, err := a.streams.begin(c.customerID())
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(c.ctx(), accessFor)
	defer cancel()
	go func() {
		select {
		case <-a.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	sent := map[string][]byte{}
	first, err := a.news(ctx, c, sent)
	if err != nil {
		return err // an answer has not begun
	}
	checked := time.Now()
	return a.sendEvents(ctx, c, first, func(ctx context.Context) ([]byte, error) {
		if time.Since(checked) >= checkEvery {
			if p, err := a.authenticate(a.customers, c.r); err == nil && p.nobody() || kindOf(err) == kindUnauthenticated() {
				return nil, errStreamOver
			}
			checked = time.Now()
		}
		// While Postgres is away the stream stays, and goes on afterwards.
		news, err := a.news(ctx, c, sent)
		if errors.Is(err, control.ErrNotFound) {
			return nil, errStreamOver
		}
		return news, nil
	})
}

// errStreamOver is what ends a stream in order.
var errStreamOver = errors.New("the stream is over")

// sendEvents writes server-sent events: first, and then what news returns each time it is
// asked, until ctx ends, the client is gone, or news fails.
func (a *API) sendEvents(ctx context.Context, c *call, first []byte, news func(context.Context) ([]byte, error)) error {
	out := http.NewResponseController(c.w)
	// The server's limit is for requests that end.
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("X-Accel-Buffering", "no") // or nginx would hold events back
	c.w.WriteHeader(http.StatusOK)
	write := func(b []byte) bool {
		if err := out.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
			return false
		}
		_, err := c.w.Write(b) // #nosec G705 -- JSON as text/event-stream, with nosniff: no browser takes it for HTML
		return err == nil && out.Flush() == nil
	}
	if !write(append(fmt.Appendf(nil, "retry: %d\n\n", max(a.o.StreamEvery, time.Second).Milliseconds()), first...)) {
		return nil
	}
	tick := time.NewTicker(a.o.StreamEvery)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		b, err := news(ctx)
		if err != nil {
			return nil
		}
		if len(b) == 0 && time.Since(heard) >= a.o.Heartbeat {
			b = []byte(": still there\n\n")
		}
		if len(b) == 0 {
			continue
		}
		if !write(b) {
			return nil
		}
		heard = time.Now()
	}
}

// kindOf is the sort of problem that err is, the zero kind if it is none.
func kindOf(err error) kind {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.kind
	}
	return kind{}
}

// news encodes what differs from what was sent, and notes it as sent.
func (a *API) news(ctx context.Context, c *call, sent map[string][]byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, newsWithin)
	defer cancel()
	var p Profile
	var period *PeriodUsage
	var boxes []control.BoxDetail
	err := a.o.Store.ForCustomer(ctx, c.customerID(), func(tx *store.Tx) (err error) {
		if p, err = profile(ctx, tx, c.customerID()); err != nil {
			return err
		}
		if period, err = present(ctx, tx, c.customerID(), a.now()); err != nil {
			return err
		}
		boxes, err = tx.BoxDetails(ctx, c.customerID())
		return err
	})
	if err != nil {
		return nil, err
	}
	a.addLive(ctx, period)
	var out bytes.Buffer
	for _, e := range []struct {
		name string
		data any
		skip bool
	}{{"account", p, false}, {"usage", period, period == nil}, {"boxes", some(boxes), false}} {
		if e.skip {
			continue
		}
		data, err := json.Marshal(e.data) // on one line
		if err != nil {
			return nil, fmt.Errorf("event stream: %w", err)
		}
		if bytes.Equal(data, sent[e.name]) {
			continue
		}
		sent[e.name] = data
		fmt.Fprintf(&out, "event: %s\ndata: %s\n\n", e.name, data)
	}
	return out.Bytes(), nil
}

// Export is all that is known of a customer.
type Export struct {
	control.CustomerData
	Events []contract.Event `json:"events" doc:"Oldest first."`
}

// streamExport writes events as they come from Postgres, since they may be many. If it
// breaks off, so does the connection.
func (a *API) streamExport(c *call) error {
	if wait, ok := a.exports.Take(c.customerID(), time.Now()); !ok {
		return tooMany(wait, "Exports take long: come again later.")
	}
	select {
	case a.exporting <- struct{}{}:
		defer func() { <-a.exporting }()
	default:
		return &failure{kind: kindUnavailable(), detail: "Others export just now.", retryAfter: 10 * time.Second}
	}
	ctx, cancel := context.WithTimeout(c.ctx(), exportWithin)
	defer cancel()
	if err := http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(exportWithin)); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return a.o.Store.ForCustomer(ctx, c.customerID(), func(tx *store.Tx) error {
		data, err := tx.Export(ctx, c.customerID())
		if err != nil {
			return err
		}
		head, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		c.w.Header().Set("Content-Type", "application/json")
		c.w.Header().Set("Content-Disposition", `attachment; filename="openclaw-export.json"`)
		c.w.WriteHeader(http.StatusOK)
		if _, err := fmt.Fprintf(c.w, `%s,"events":[`, head[:len(head)-1]); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		n := 0
		err = tx.EachEvent(ctx, c.customerID(), func(e contract.Event) error {
			b, err := json.Marshal(e)
			if err != nil {
				return fmt.Errorf("export: %w", err)
			}
			if n++; n > 1 {
				b = append([]byte{',', '\n'}, b...)
			}
			if _, err := c.w.Write(b); err != nil {
				return fmt.Errorf("export: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		_, err = c.w.Write([]byte("]}\n"))
		return err
	})
}
