package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// shares returns what each replica has of a customer's rate, and when it last said so.
func shares(t testing.TB, client redis.UniversalClient, customer string) (share map[string]float64, said map[string]string) {
	t.Helper()
	all, err := client.HGetAll(context.Background(), contract.RateKey(customer)).Result()
	if err != nil {
		t.Fatal(err)
	}
	share, said = map[string]float64{}, map[string]string{}
	for replica, text := range all {
		fields := strings.Fields(text)
		if share[replica], err = strconv.ParseFloat(fields[1], 64); err != nil {
			t.Fatal(err)
		}
		said[replica] = fields[2]
	}
	return share, said
}

// Customers' shares lie on all masters of a Cluster. One that is away touches only its own.
func TestRatesOnCluster(t *testing.T) {
	t.Parallel()
	server := testenv.RedisCluster(t)
	client := server.Client()
	const grace = 2 * time.Second
	want := quota.RequestRate{PerSecond: 90, Burst: 10}
	replicas := make([]*quota.Rates, 2)
	for i := range replicas {
		replicas[i] = quota.NewRates(server.Client(), quota.RateOptions{
			Replica: fmt.Sprintf("r%d", i), SyncInterval: 50 * time.Millisecond, Grace: grace, Logger: slog.New(slog.DiscardHandler),
		})
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = replicas[i].Close(ctx) // a master does not answer
		})
	}
	customers := make([]string, 30)
	for i := range customers {
		customers[i] = "c" + strconv.Itoa(i)
	}
	busy, stop := context.WithCancel(t.Context())
	var offering sync.WaitGroup
	defer func() { stop(); offering.Wait() }()
	var mu sync.Mutex
	admitted := map[string]int{}
	for _, r := range replicas {
		offering.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for busy.Err() == nil {
				mu.Lock()
				now := customers
				mu.Unlock()
				for _, c := range now {
					if ok, _, _ := r.Allow(c, want, time.Now()); ok {
						mu.Lock()
						admitted[c]++
						mu.Unlock()
					}
				}
				<-tick.C
			}
		})
	}
	agreed := func() bool {
		for _, c := range customers {
			share, _ := shares(t, client, c)
			sum := 0.0
			for _, s := range share {
				sum += s
			}
			if len(share) != 2 || sum < 0.99*want.PerSecond {
				return false
			}
			if sum > 1.001*want.PerSecond {
				t.Fatalf("customer %s: shares %v of %v", c, share, want.PerSecond)
			}
		}
		return true
	}
	eventually(t, "all rates are shared out", agreed)
	if err := client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all rates are shared out without the script", agreed)

	// told waits until both replicas have told Redis of all these customers once more.
	told := func(what string, list []string) {
		t.Helper()
		before := map[string]map[string]string{}
		for _, c := range list {
			_, before[c] = shares(t, client, c)
		}
		eventually(t, what, func() bool {
			for _, c := range list {
				if _, said := shares(t, client, c); len(said) != 2 || said["r0"] == before[c]["r0"] || said["r1"] == before[c]["r1"] {
					return false
				}
			}
			return true
		})
	}
	server.Move(contract.RateKey(customers[1]), func() { told("while a slot moves", customers[1:2]) })
	told("after a slot has moved", customers[1:2])

	away := server.Of(contract.RateKey(customers[0]))
	var there, gone []string
	for _, c := range customers {
		if server.Of(contract.RateKey(c)) == away {
			gone = append(gone, c)
		} else {
			there = append(there, c)
		}
	}
	newcomer := ""
	for i := 0; newcomer == ""; i++ {
		if c := "n" + strconv.Itoa(i); server.Of(contract.RateKey(c)) == away {
			newcomer = c
		}
	}
	away.Pause()
	told("customers on other masters go on", there)
	mu.Lock()
	customers = append(customers, newcomer)
	mu.Unlock()
	// After the grace each replica gives a third of the rate, so the two give 60 a second.
	time.Sleep(grace)
	for _, c := range []string{newcomer, gone[0]} {
		eventually(t, c+" gets a part of its rate", func() bool {
			mu.Lock()
			from := admitted[c]
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			return admitted[c]-from > 30
		})
	}
	// The others keep the whole rate.
	eventually(t, "the other customers have their whole rate", func() bool {
		mu.Lock()
		from := maps.Clone(admitted)
		mu.Unlock()
		began := time.Now()
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		rate := func(c string) float64 { return float64(admitted[c]-from[c]) / time.Since(began).Seconds() }
		if got := rate(newcomer); got > 1.2*want.PerSecond {
			t.Errorf("%.0f/s of %.0f while its master is away", got, want.PerSecond)
		}
		for _, c := range there {
			if rate(c) < 0.8*want.PerSecond {
				return false
			}
		}
		return true
	})
}
