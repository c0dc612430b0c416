package store_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// deliveries returns those of the given numbers of one replica.
func deliveries(customer, period, replica string, seqs ...int64) []control.Delivery {
	list := make([]control.Delivery, len(seqs))
	for i, seq := range seqs {
		list[i] = delivery(customer, period, replica, seq)
	}
	return list
}

func acked(t *testing.T, st *store.Store) map[string]int64 {
	t.Helper()
	m, err := st.Acked(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAckedEndsAtTheFirstGap(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	seqs := func(s ...int64) []control.Delivery { return deliveries(c.ID, p.ID, "r1", s...) }
	unknown := seqs(6)
	unknown[0].Event.CustomerID = "nobody"
	old := seqs(8)
	old[0].Event.AdmittedAt = time.Now().AddDate(-3, 0, 0)
	bad := seqs(9)
	bad[0].Event.Prompt = -1 // Postgres refuses it
	for _, s := range []struct {
		name string
		list []control.Delivery
		dead []control.DeadLetter
		want int64
	}{
		{"later ones first", seqs(4, 5), nil, 0},
		{"the first", seqs(1), nil, 1},
		{"not the next", seqs(3), nil, 1},
		{"again", seqs(1, 3, 5), nil, 1},
		{"the gap is filled", seqs(2), nil, 5},
		{"of an unknown customer", unknown, nil, 6},
		{"too old, behind a gap", old, nil, 6},
		{"refused by Postgres, with a neighbour", append(bad, seqs(10)...), nil, 6},
		{"undecodable, with its number", nil, []control.DeadLetter{{StreamID: "7-1", Replica: "r1", Seq: 7, Payload: []byte("{}")}}, 10},
		{"undecodable, without", seqs(12), []control.DeadLetter{{StreamID: "7-2", Payload: []byte("{}")}}, 10},
		{"all of it again", append(seqs(1, 2, 3, 4, 5, 10, 12), unknown...), nil, 10},
		{"to the end", seqs(11), nil, 12},
	} {
		r, err := st.RecordUsage(t.Context(), s.list, s.dead)
		if err != nil {
			t.Fatal(err)
		}
		if got := acked(t, st)["r1"]; got != s.want || len(s.list) > 0 && r.Acked["r1"] != s.want {
			t.Errorf("%s: acked %d, returned %d; want %d", s.name, got, r.Acked["r1"], s.want)
		}
	}
	list, err := st.Replicas(t.Context(), 10)
	if err != nil || len(list) != 1 || list[0].ID != "r1" || list[0].Status != control.ReplicaLive || list[0].Acked != 12 || list[0].Highest != 12 ||
		list[0].LastSeen.Before(list[0].FirstSeen) || list[0].FirstSeen.IsZero() {
		t.Errorf("replicas %+v, %v", list, err)
	}
}

// What a parked event says of itself must never keep the others from being recorded.
func TestAckedSurvivesPoisonousNumbers(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	var dead []control.DeadLetter
	for i, d := range []control.DeadLetter{
		{Replica: "r\x00", Seq: 1}, {Replica: strings.Repeat("x", 500), Seq: 1}, {Replica: "\xff", Seq: 1}, {Replica: "r1", Seq: -1},
		{Replica: "r1", Seq: math.MaxInt64}, {Replica: "r1", Seq: math.MaxInt64 - 1}, {Replica: "", Seq: 2},
	} {
		d.StreamID, d.Index, d.Payload = "1-1", i, []byte("x")
		dead = append(dead, d)
	}
	list := deliveries(c.ID, p.ID, "r1", 1, math.MaxInt64, math.MaxInt64-1)
	r, err := st.RecordUsage(t.Context(), list, dead)
	if err != nil || r.Inserted != 3 || r.Acked["r1"] != 1 || len(r.Acked) != 1 {
		t.Errorf("recorded %+v, %v", r, err)
	}
	if got := strings.TrimSpace(pg.Query("SELECT count(*), count(replica) FROM dead_letters")); got != "7|1" {
		t.Errorf("dead letters, with a number: %s, want 7|1", got)
	}
}

// A worker that has written 1…5 and not yet committed keeps 6…10 of another one from
// being acknowledged, not from being committed; whoever commits last acknowledges all.
func TestAckedWhenWorkersCommitOutOfOrder(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	slow, _, ps := addCustomer(t, st)
	quick, _, pq := addCustomer(t, st)
	locked, release := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- st.InTx(context.Background(), func(tx *store.Tx) error {
			_, err := tx.SetLimit(context.Background(), slow.ID, ps.ID, 1, control.PeriodOverage{}) // locks the totals
			close(locked)
			<-release
			return err
		})
	}()
	<-locked
	first := make(chan map[string]int64, 1)
	go func() {
		r, err := st.RecordUsage(context.Background(), deliveries(slow.ID, ps.ID, "r1", 1, 2, 3, 4, 5), nil)
		if err != nil {
			t.Error(err)
		}
		first <- r.Acked
	}()
	// Until it waits, in its transaction, for the totals.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if strings.TrimSpace(pg.Query("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")) == "1" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the first worker does not wait")
		}
	}
	if r := record(t, st, deliveries(quick.ID, pq.ID, "r1", 6, 7, 8, 9, 10)...); r.Inserted != 5 || r.Acked["r1"] != 0 {
		t.Errorf("the second worker: %+v, want 0 acknowledged", r)
	}
	close(release)
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	if got := <-first; got["r1"] != 10 {
		t.Errorf("the first worker acknowledged %v, want 10", got)
	}
}

// Random batches of several replicas, repeated and in any order, some of them poison,
// by workers at the same time: never is a number acknowledged whose event is not
// there, and in the end all are.
func TestAckedEqualsAModel(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	const replicas, events = 3, 120
	var all []control.Delivery
	for r := range replicas {
		for seq := range int64(events) {
			d := delivery(c.ID, p.ID, fmt.Sprintf("r%d", r), seq+1)
			if rnd.IntN(10) == 0 {
				d.Event.CustomerID = "nobody"
			}
			all = append(all, d)
		}
	}
	// One worker: after each batch the store says what the model says.
	model := make(map[string]map[int64]bool)
	prefix := func(replica string) (n int64) {
		for model[replica][n+1] {
			n++
		}
		return n
	}
	pick := func() []control.Delivery {
		var list []control.Delivery
		if rnd.IntN(2) == 0 { // neighbours
			from := rnd.IntN(len(all))
			list = append(list, all[from:min(from+1+rnd.IntN(20), len(all))]...)
		}
		for range rnd.IntN(8) {
			list = append(list, all[rnd.IntN(len(all))])
		}
		return list
	}
	for range 60 {
		list := pick()
		r := record(t, st, list...)
		for _, d := range list {
			if model[d.Event.Replica] == nil {
				model[d.Event.Replica] = make(map[int64]bool)
			}
			model[d.Event.Replica][d.Event.Seq] = true
		}
		got := acked(t, st)
		for replica := range model {
			if want := prefix(replica); got[replica] != want {
				t.Fatalf("replica %s: acked %d, want %d", replica, got[replica], want)
			}
		}
		for replica, n := range r.Acked {
			if n != prefix(replica) {
				t.Fatalf("replica %s: returned %d, want %d", replica, n, prefix(replica))
			}
		}
	}
	// Four workers, while someone watches.
	var work [4][][]control.Delivery
	for i := 0; i < len(all); i += 5 {
		for range 1 + rnd.IntN(2) {
			w := rnd.IntN(len(work))
			work[w] = append(work[w], all[i:i+5])
		}
	}
	watched := make(chan struct{})
	var wg, watch sync.WaitGroup
	watch.Go(func() {
		for {
			missing := pg.Query(`SELECT r.id, n FROM replicas r, generate_series(1, acked_seq) n
				WHERE NOT EXISTS (SELECT FROM usage_events e WHERE e.replica = r.id AND e.seq = n)
					AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.replica = r.id AND d.seq = n)`)
			if strings.TrimSpace(missing) != "" {
				t.Errorf("acknowledged and not there: %s", missing)
			}
			select {
			case <-watched:
				return
			default:
			}
		}
	})
	for w := range work {
		rnd.Shuffle(len(work[w]), func(i, j int) { work[w][i], work[w][j] = work[w][j], work[w][i] })
		wg.Go(func() {
			for _, list := range work[w] {
				if _, err := st.RecordUsage(context.Background(), list, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(watched)
	watch.Wait()
	for r := range replicas {
		if got := acked(t, st)[fmt.Sprintf("r%d", r)]; got != events {
			t.Errorf("replica r%d: acked %d, want %d", r, got, events)
		}
	}
	if got := strings.TrimSpace(pg.Query("SELECT count(DISTINCT (replica, seq)) = count(*) FROM dead_letters")); got != "t" {
		t.Error("an event that was sent again was parked again")
	}
}

func TestAckedIsOfLiveReplicas(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	for _, replica := range []string{"live", "lost", "silent"} {
		record(t, st, deliveries(c.ID, p.ID, replica, 1, 2)...)
	}
	pg.Query("UPDATE replicas SET last_seen_at = now() - interval '30 days' WHERE id = 'silent'")
	lose := func(id string) error {
		return st.InTx(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.LockReplica(t.Context(), id); err != nil {
				return err
			}
			return tx.SetReplicaLost(t.Context(), id, "fire", time.Now())
		})
	}
	if err := lose("lost"); err != nil {
		t.Fatal(err)
	}
	if err := lose("nobody"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("an unknown replica: %v", err)
	}
	if got := acked(t, st); len(got) != 1 || got["live"] != 2 {
		t.Errorf("acked %v, want that of the live one", got)
	}
	// Those that send again are answered.
	r := record(t, st, append(deliveries(c.ID, p.ID, "silent", 3), deliveries(c.ID, p.ID, "lost", 3)...)...)
	if r.Inserted != 2 || r.Acked["silent"] != 3 || r.Acked["lost"] != 3 {
		t.Errorf("recorded %+v", r)
	}
	if got := acked(t, st); len(got) != 2 || got["silent"] != 3 {
		t.Errorf("acked %v", got)
	}
}

// A database from before knows what it has.
func TestMigrationAccountsForEvents(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	record(t, st, append(deliveries(c.ID, p.ID, "r1", 1, 2, 4, math.MaxInt64), deliveries(c.ID, p.ID, "r2", 2)...)...)
	if err := st.MigrateDownTo(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := acked(t, st); got["r1"] != 2 || got["r2"] != 0 {
		t.Errorf("acked %v", got)
	}
	if r := record(t, st, deliveries(c.ID, p.ID, "r1", 3)...); r.Acked["r1"] != 4 {
		t.Errorf("recorded %+v", r)
	}
}
