package e2e_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// One customer asks for far more than its rate, of one replica and of three. Over all
// replicas and any 10 s at most 1.1 × rate × 10 + burst × replicas are admitted, and at
// least 0.9 × rate when one replica gets all the traffic.
func TestRateOverReplicas(t *testing.T) {
	const (
		rate, burst = 10, 20 // of every tier
		window      = 10 * time.Second
	)
	while := full(25*time.Second, time.Minute)
	for _, replicas := range []int{1, 3} {
		name := map[int]string{1: "one replica", 3: "three replicas"}[replicas]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stack.New(t, stack.Options{Replicas: replicas})
			s.Sim.SetDefaults(kimisim.Behavior{OutputTokens: 1})
			tok := s.Customer("Rita", "team")
			s.Ctl(nil, "quota", "set", "--customer", tok.Customer, "--limit", "1000000000")
			began := time.Now()
			admitted := hammer(s, tok.Raw, while)
			slices.SortFunc(admitted, time.Time.Compare)
			most, least := windows(admitted, window, began, began.Add(while))
			t.Logf("%s: %d admitted in %v; in 10 s at most %d, at least %d", name, len(admitted), while, most, least)
			if limit := 11*rate + burst*replicas; most > limit {
				t.Errorf("%d admitted in 10 s, want at most %d", most, limit)
			}
			if replicas == 1 && least < 9*rate {
				t.Errorf("only %d admitted in 10 s, want at least %d", least, 9*rate)
			}
		})
	}
}

// hammer offers about 100 requests/s, spread over the replicas, and returns when each
// admitted one was sent.
func hammer(s *stack.Stack, token string, d time.Duration) []time.Time {
	var mu sync.Mutex
	var admitted []time.Time
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for w := range 9 {
		wg.Go(func() {
			for n := w; time.Now().Before(end); n++ {
				sent := time.Now()
				if ask(s.Proxies[n%len(s.Proxies)], token) == http.StatusOK {
					mu.Lock()
					admitted = append(admitted, sent)
					mu.Unlock()
				}
				time.Sleep(time.Until(sent.Add(90 * time.Millisecond)))
			}
		})
	}
	wg.Wait()
	return admitted
}

func ask(p *stack.Proxy, token string) int {
	body := `{"model":"kimi-k2.5","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	req, err := http.NewRequest("POST", p.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// windows returns the most times in any window, and the fewest in any that lies whole
// between begin and end.
func windows(at []time.Time, window time.Duration, begin, end time.Time) (most, least int) {
	count := func(from time.Time) int {
		lo, _ := slices.BinarySearchFunc(at, from, time.Time.Compare)
		hi, _ := slices.BinarySearchFunc(at, from.Add(window), time.Time.Compare)
		return hi - lo
	}
	least = count(begin)
	for _, t := range at {
		most = max(most, count(t))
	}
	for from := begin; !from.Add(window).After(end); from = from.Add(100 * time.Millisecond) {
		least = min(least, count(from))
	}
	return most, least
}

// The fewest must see a proxy that stops admitting.
func TestWindows(t *testing.T) {
	begin := time.Unix(0, 0)
	var at []time.Time
	for i := range 100 {
		at = append(at, begin.Add(time.Duration(i)*100*time.Millisecond))
	}
	if most, least := windows(at, 5*time.Second, begin, begin.Add(20*time.Second)); most != 50 || least != 0 {
		t.Errorf("most %d, least %d; want 50 and 0", most, least)
	}
	if most, least := windows(at, 5*time.Second, begin, begin.Add(10*time.Second)); most != 50 || least != 50 {
		t.Errorf("most %d, least %d; want 50 and 50", most, least)
	}
}
