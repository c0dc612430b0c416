package store_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// A process that is stopped in a transaction keeps the rows that it locked for a while
// only: the ledger goes on without it, and what it had in hand is not committed.
func TestStoppedInATransaction(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	record(t, st, delivery(c.ID, p.ID, "r1", 1))
	stopped, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stopped.Close)
	locked, thaw, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- stopped.InTx(context.Background(), func(tx *store.Tx) error {
			_, err := tx.LockReplica(context.Background(), "r1")
			close(locked)
			<-thaw
			return err
		})
	}()
	<-locked
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second) // less than a statement's
	defer cancel()
	if _, err := st.RecordUsage(ctx, []control.Delivery{delivery(c.ID, p.ID, "r1", 2)}, nil); err != nil {
		t.Errorf("while another is stopped: %v", err)
	}
	close(thaw)
	if err := <-ended; err == nil {
		t.Error("the transaction of the one that was stopped was committed")
	}
}

// A process that is stopped while it holds a lock keeps it for some seconds only, and learns
// of that when it goes on.
func TestStoppedWithALock(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	freeze, address := freezable(t, pg.URL)
	stopped, err := store.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stopped.Close)
	has, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := stopped.WithLock(t.Context(), "a", func(ctx context.Context) error {
			close(has)
			<-ctx.Done()
			return ctx.Err()
		})
		ended <- err
	}()
	<-has
	if ran, err := st.WithLock(t.Context(), "a", func(context.Context) error { return nil }); err != nil || ran {
		t.Fatalf("two have the lock: %v, %v", ran, err)
	}
	freeze()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ran, err := st.WithLock(t.Context(), "a", func(context.Context) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if ran {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lock of a process that is stopped is not free")
		}
	}
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "lock a: it was lost") {
		t.Errorf("the one that was stopped: %v", err)
	}
}

// freezable returns the URL of a way to the database at databaseURL, and what makes that way
// silent, as if whoever uses it was stopped.
func freezable(t *testing.T, databaseURL string) (freeze func(), through string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Host = listener.Addr().String()
	frozen := make(chan struct{})
	var mu sync.Mutex
	var conns []net.Conn
	var copying sync.WaitGroup
	pass := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			select {
			case <-frozen:
				_, _ = io.Copy(io.Discard, from)
				return
			default:
			}
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				_, _ = from.Close(), to.Close()
				return
			}
		}
	}
	copying.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, client, upstream)
			mu.Unlock()
			copying.Go(func() { pass(upstream, client) })
			copying.Go(func() { pass(client, upstream) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		copying.Wait()
	})
	return sync.OnceFunc(func() { close(frozen) }), u.String()
}
