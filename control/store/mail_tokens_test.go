package store_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// A mailed token is good once, for one thing, until it expires or another one is mailed.
func TestMailTokens(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx := t.Context()
	c := signUp(t, st, "ada@example.com")
	now := time.Now().UTC()
	put := func(kind, address string) control.MailToken {
		t.Helper()
		_, token := control.NewMailToken(c.ID, kind, address, now)
		if err := st.PutMailToken(ctx, token); err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := func(k control.MailToken, kind string, at time.Time) bool {
		t.Helper()
		got, err := st.MailToken(ctx, kind, k.Digest, at)
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil && got.CustomerID == c.ID && got.Address == "ada@example.com"
	}
	first := put(control.MailResetPassword, "Ada@example.com")
	verify := put(control.MailVerifyEmail, "ada@example.com")
	if !good(first, control.MailResetPassword, now) || good(first, control.MailVerifyEmail, now) || good(first, control.MailResetPassword, now.Add(time.Hour)) {
		t.Error("the first one is not what it should be")
	}
	second := put(control.MailResetPassword, "ada@example.com")
	if good(first, control.MailResetPassword, now) || !good(second, control.MailResetPassword, now) || !good(verify, control.MailVerifyEmail, now) {
		t.Error("the second one should replace the first, and nothing else")
	}
	// Nobody gets one who does not sign in by that address.
	for _, k := range []struct{ customer, address string }{{c.ID, "other@example.com"}, {"nobody", "ada@example.com"}} {
		_, token := control.NewMailToken(k.customer, control.MailResetPassword, k.address, now)
		if err := st.PutMailToken(ctx, token); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("%v: %v", k, err)
		}
	}
	var used atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := st.InTx(ctx, func(tx *store.Tx) error {
				_, err := tx.UseMailToken(ctx, second.Kind, second.Digest, now)
				return err
			})
			if err == nil {
				used.Add(1)
			} else if !errors.Is(err, control.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if used.Load() != 1 {
		t.Errorf("%d of 8 used it", used.Load())
	}
	confirm := func(address string) error {
		return st.InTx(ctx, func(tx *store.Tx) error { return tx.ConfirmAddress(ctx, "x", c.ID, address, now) })
	}
	if err := confirm("other@example.com"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("another address: %v", err)
	}
	for range 2 {
		if err := confirm("ADA@example.com"); err != nil {
			t.Error(err)
		}
	}
	if n := strings.TrimSpace(pg.Query("SELECT count(*) FROM audit_log WHERE action = 'customer.verify_email'")); n != "1" {
		t.Errorf("%s entries in the audit log", n)
	}
	if n, err := st.PruneSignIns(ctx, now.Add(73*time.Hour), 100); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
}
