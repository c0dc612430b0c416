package main_test

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Packages operator and customers do not know each other.
var _ operator.Books = (*customers.Boxes)(nil)

// After reseal the newest key is all that is needed.
func TestReseal(t *testing.T) {
	t.Parallel()
	const older, newer = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	const bot secret.Text = "100000:a-fake-token-of-no-bot-at-all-x"
	w := newWorld(t)
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := secret.ParseKeys(older)
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	if err != nil {
		t.Fatal(err)
	}
	service := &customers.Service{Store: w.store, Tiers: table, Hasher: hasher, Seals: keys}
	made, err := service.CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "x", Tier: "pro"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.SetTelegramToken(t.Context(), "test", customers.BoxRef{ID: made.Box.ID}, bot); err != nil {
		t.Fatal(err)
	}
	reseal := func(text string) (int, string) {
		return run(t, map[string]string{"DATABASE_URL": w.env["DATABASE_URL"], "BOX_SECRETS_KEY": text}, "reseal")
	}
	for text, says := range map[string]string{newer: "none of the keys", "x": "32 bytes", "": "required", older + "," + older: "twice"} {
		if code, out := reseal(text); code == 0 || !strings.Contains(out, says) || strings.Contains(out, older) {
			t.Errorf("%q: exit code %d, %s", says, code, out)
		}
	}
	for _, want := range []string{`"resealed":1`, `"resealed":0`} {
		if code, out := reseal(newer + "," + older); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("exit code %d, %s; want %s", code, out, want)
		}
	}
	if service.Seals, err = secret.ParseKeys(newer); err != nil {
		t.Fatal(err)
	}
	boxes := &customers.Boxes{Service: service}
	if d, err := boxes.Desired(t.Context(), made.Box.ID); err != nil || d.TelegramToken != bot {
		t.Errorf("%v", err)
	}
}
