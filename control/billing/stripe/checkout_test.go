package stripe_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// trial gives first subscriptions so many days for nothing.
func (e *env) trial(t *testing.T, days int64) {
	t.Helper()
	var err error
	e.checkout, err = stripe.NewCheckout(stripe.CheckoutOptions{
		Account: e.account, Customers: e.service, SuccessURL: "https://a.example.invalid", CancelURL: "https://b.example.invalid",
		ReturnURL: "https://c.example.invalid", TrialDays: days,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckoutByManyAtOnce(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer := e.signUp(t).ID
	const n = 8
	urls, errs := make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { urls[i], errs[i] = e.checkout.CheckoutURL(t.Context(), customer, "pro") })
	}
	wg.Wait()
	page, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if err != nil && !errors.Is(err, control.ErrConflict) || err == nil && urls[i] != page {
			t.Errorf("page %s, %v; want %s", urls[i], err, page)
		}
	}
	if n := e.sim.Customers(); n != 1 {
		t.Errorf("%d customers at Stripe", n)
	}
	// Another tier closes the page of this one.
	other, err := e.checkout.CheckoutURL(t.Context(), customer, "team")
	if err != nil || other == page {
		t.Fatalf("page %s, %v", other, err)
	}
	if _, err := e.sim.Complete(page); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("the first page: %v", err)
	}
}

// However pages are asked for, a customer can pay on one of them only.
func TestOnePageCanBePaid(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer := e.signUp(t).ID
	if _, err := e.checkout.CheckoutURL(t.Context(), customer, "pro"); err != nil { // so that Stripe knows the customer
		t.Fatal(err)
	}
	// While one is being made, another tier's is asked for.
	var during string
	var refused error
	e.sim.Before("POST /v1/checkout/sessions", func() { during, refused = e.checkout.CheckoutURL(t.Context(), customer, "starter") })
	page, err := e.checkout.CheckoutURL(t.Context(), customer, "team")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.sim.Complete(page); err != nil {
		t.Fatal(err)
	}
	if _, err := e.sim.Complete(during); err == nil || !errors.Is(refused, control.ErrConflict) {
		t.Errorf("the other page: %s, %v; paid: %v", during, refused, err)
	}
	// No event has told of it yet.
	if again, err := e.checkout.CheckoutURL(t.Context(), customer, "starter"); !errors.Is(err, control.ErrExists) {
		t.Errorf("a page after one was paid: %s, %v", again, err)
	}
	e.deliver(t)
	e.want(t, customer, "active team active")
}

// Who owes an invoice pays that before it buys anew; a first payment that never came is not owed,
// and neither is anything that is not sold here.
func TestWhoOwesCannotBuy(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	_, end, _ := e.sim.Period(sub)
	e.sim.Decline(sub, true)
	e.sim.Advance(end)
	e.deliver(t)
	e.sim.Cancel(sub) // Stripe gives up
	e.deliver(t)
	e.want(t, customer, "cancelled starter canceled")
	_, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	var unpaid *control.UnpaidError
	if !errors.As(err, &unpaid) || !strings.HasPrefix(unpaid.URL, "https://invoice.example.invalid/in_") || strings.Contains(err.Error(), unpaid.URL) {
		t.Fatalf("with an open invoice: %v", err)
	}
	e.sim.Decline(sub, false)
	if err := e.sim.Retry(sub); err != nil {
		t.Fatal(err)
	}
	page, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	if err != nil {
		t.Fatalf("with nothing open: %v", err)
	}
	e.sim.SellOther(e.stripeID(customer))
	e.sim.Decline(sub, true)
	begun, err := e.sim.Complete(page)
	if err != nil {
		t.Fatal(err)
	}
	e.sim.Decline(sub, false)
	if again, err := e.checkout.CheckoutURL(t.Context(), customer, "pro"); err != nil || again != page {
		t.Errorf("with a first payment that failed: %s, %v; want %s", again, err, page)
	}
	if _, _, status := e.sim.Period(begun); status != "incomplete" {
		t.Errorf("it is %s", status)
	}
}

// Whoever dies between Stripe's answer and the note of it finds the same customer again.
func TestCheckoutAfterACrash(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer := e.signUp(t).ID
	ctx, cancel := context.WithCancel(t.Context())
	e.query("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''killed''; END'; " +
		"CREATE TRIGGER refuse BEFORE UPDATE OF stripe_customer_id ON customers FOR EACH ROW EXECUTE FUNCTION refuse()")
	if _, err := e.checkout.CheckoutURL(ctx, customer, "pro"); err == nil {
		t.Fatal("it was not killed")
	}
	cancel()
	e.query("DROP TRIGGER refuse ON customers")
	if _, err := e.checkout.CheckoutURL(t.Context(), customer, "pro"); err != nil {
		t.Fatal(err)
	}
	if n := e.sim.Customers(); n != 1 {
		t.Errorf("%d customers at Stripe", n)
	}
}

func TestPortalAndInvoices(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	nobody := e.signUp(t).ID
	if _, err := e.checkout.PortalURL(t.Context(), nobody); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("portal of one who bought nothing: %v", err)
	}
	if list, err := e.checkout.Invoices(t.Context(), nobody, 10); err != nil || len(list) != 0 || list == nil {
		t.Errorf("invoices of one who bought nothing: %v, %v", list, err)
	}
	customer, _ := e.buy(t, "pro")
	e.buy(t, "team") // somebody else's
	e.deliver(t)
	if url, err := e.checkout.PortalURL(t.Context(), customer); err != nil || !strings.HasPrefix(url, "https://portal.example.invalid/") {
		t.Errorf("portal %s, %v", url, err)
	}
	list, err := e.checkout.Invoices(t.Context(), customer, 10)
	if err != nil || len(list) != 1 || list[0].AmountCents != 4900 || list[0].Status != "paid" || list[0].URL == "" || list[0].Currency != "usd" {
		t.Errorf("invoices %+v, %v", list, err)
	}
	if _, err := e.checkout.PortalURL(t.Context(), "nobody"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("portal of nobody: %v", err)
	}
	if _, err := e.checkout.CheckoutURL(t.Context(), nobody, "gold"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("checkout of no tier: %v", err)
	}
}

func TestChangeTier(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	for _, c := range []struct{ tier, want string }{{"starter", "starter"}, {"team", "team"}, {"pro", "team"}} {
		id, err := e.checkout.ChangeTier(t.Context(), customer, c.tier)
		if err != nil || id != sub {
			t.Fatalf("to %s: %s, %v", c.tier, id, err)
		}
		if err := e.processor.Sync(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		e.want(t, customer, "active "+c.want+" active")
	}
	if list, err := e.checkout.Invoices(t.Context(), customer, 10); err != nil || len(list) != 2 {
		t.Errorf("%d invoices, %v: the upgrade is paid at once, the downgrade not", len(list), err)
	}
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	e.want(t, customer, "active pro active")
	if _, err := e.checkout.ChangeTier(t.Context(), e.signUp(t).ID, "pro"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("of one without a subscription: %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	key := e.token(t, customer)
	for _, now := range []bool{false, true} {
		id, err := e.checkout.Cancel(t.Context(), customer, now)
		if err != nil || id != sub {
			t.Fatalf("cancelled %s, %v", id, err)
		}
		if err := e.processor.Sync(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if !now {
			e.want(t, customer, "active starter active")
		}
	}
	e.want(t, customer, "cancelled starter canceled")
	if g := e.grant(t, key); g.Status != contract.StatusRevoked {
		t.Errorf("grant %+v", g)
	}
	if _, err := e.checkout.Cancel(t.Context(), customer, true); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("cancelled again: %v", err)
	}
	// Now its personal data can go, and what Stripe still has to say changes nothing.
	if err := e.service.DeleteCustomer(t.Context(), "test", customer); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "cancelled starter canceled")
}

// An error of Stripe's own, which it repeats for the same key, shuts nobody out for longer than
// some minutes.
func TestCheckoutAfterAnErrorOfStripe(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer := e.signUp(t).ID
	for _, route := range []string{"POST /v1/customers", "POST /v1/checkout/sessions"} {
		e.sim.FailRoute(route, 1)
		if _, err := e.checkout.CheckoutURL(t.Context(), customer, "pro"); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("%s fails: %v", route, err)
		}
		e.sim.Advance(e.sim.Now().Add(5 * time.Minute))
	}
	url, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := e.sim.Complete(url)
	if err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	allow := func() error {
		_, err := e.checkout.SetOverage(t.Context(), "customer", customer, 300)
		return err
	}
	e.sim.FailRoute("POST /v1/subscriptions/{id}", 1)
	if err := allow(); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("the price is not added: %v", err)
	}
	e.sim.Advance(e.sim.Now().Add(5 * time.Minute))
	if err := allow(); err != nil {
		t.Fatal(err)
	}
	if got := e.sim.Prices(sub); len(got) != 2 {
		t.Errorf("it is for %q", got)
	}
}
