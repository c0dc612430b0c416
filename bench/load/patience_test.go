package load

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Clients that are told to wait send nothing before that is over, and what would have been theirs
// is not sent by others. Impatient ones ask again at once.
func TestPatientClientsWait(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked map[string][]time.Time
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.RemoteAddr] = append(asked[r.RemoteAddr], time.Now())
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"error":{"code":"overloaded_error","message":"later"}}`))
	}))
	t.Cleanup(s.Close)
	target := strings.TrimPrefix(s.URL, "http://")
	const clients = 4
	for _, cfg := range []Config{{Closed: true, Patient: true}, {Rate: 200, Patient: true}, {Rate: 200}} {
		mu.Lock()
		asked = map[string][]time.Time{}
		mu.Unlock()
		cfg.Target, cfg.Jobs, cfg.Connections, cfg.Threads, cfg.Duration = target, post("/", "{}"), clients, 2, 1500*time.Millisecond
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		for client, times := range asked {
			for i := range times[1:] {
				if d := times[i+1].Sub(times[i]); cfg.Patient && d < 990*time.Millisecond {
					t.Errorf("%+v: %s asked again after %v", cfg, client, d)
				}
			}
		}
		mu.Unlock()
		if r.Refused != r.Failures["status 503 overloaded_error"] || r.Refused == 0 || len(r.Failures) != 1 {
			t.Errorf("%d refused, failures %v", r.Refused, r.Failures)
		}
		switch {
		case !cfg.Patient && (r.Withheld != 0 || r.Refused < 10*clients):
			t.Errorf("impatient: %+v", r)
		case cfg.Patient && (r.Refused < clients || r.Refused > 2*clients):
			t.Errorf("patient: %d refusals of %d clients in 1.5 s", r.Refused, clients)
		case cfg.Patient && cfg.Rate > 0 && (r.Withheld+r.Offered+r.Backlog < 250 || r.Withheld < 200):
			t.Errorf("%+v: not all arrivals are told", r)
		}
	}
}
