package mail_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/mail"
)

// signInBy has a customer sign in by that address, which it has confirmed.
func (e *env) signInBy(customer, address string) {
	e.query("INSERT INTO identities (id, customer_id, provider, subject, secret_hash, verified_at) VALUES ('i" + customer + "', '" + customer + "', 'password', '" + address + "', 'x', now())")
}

// The secret of a mail is in the letter only: in no row, neither before nor after it was sent.
// Who is sent another one cannot use the first any more.
func TestLinksHaveSecrets(t *testing.T) {
	t.Parallel()
	e := newEnv(t, newPostOffice(t, false), mail.NoTLS)
	e.signInBy("c1", "ada@example.com")
	secretOf := func(l letter) string {
		t.Helper()
		found := regexp.MustCompile(`https://app\.example\.invalid/reset-password#token=(ocm_[A-Z2-7]{52})\s`).FindStringSubmatch(l.body + "\n")
		if found == nil {
			t.Fatalf("no link in %q", l.body)
		}
		return found[1]
	}
	good := func(secret string) bool {
		t.Helper()
		token, err := e.store.MailToken(t.Context(), control.MailResetPassword, control.MailTokenDigest(secret), time.Now())
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil && token.CustomerID == "c1" && token.Address == "ada@example.com"
	}
	for _, cause := range []string{"1", "2"} {
		e.add(t, "c1", control.MailResetPassword, cause)
		if err := e.SendDue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	letters := e.office.got()
	if len(letters) != 2 {
		t.Fatalf("%d letters", len(letters))
	}
	first, second := secretOf(letters[0]), secretOf(letters[1])
	if first == second || good(first) || !good(second) {
		t.Errorf("the first is good: %v, the second: %v", good(first), good(second))
	}
	if _, err := e.store.MailToken(t.Context(), control.MailVerifyEmail, control.MailTokenDigest(second), time.Now()); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("it is good for something else: %v", err)
	}
	for _, table := range []string{"mails", "mail_tokens", "audit_log"} {
		if rows := e.query("SELECT string_agg(t::text, '|') FROM " + table + " t"); strings.Contains(rows, first[4:]) || strings.Contains(rows, second[4:]) {
			t.Errorf("%s has the secret: %s", table, rows)
		}
	}
	// Whoever signs in by another address meanwhile gets no link here.
	e.query("UPDATE identities SET subject = 'new@example.com'")
	e.add(t, "c1", control.MailResetPassword, "3")
	if err := e.SendDue(t.Context()); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if n := len(e.office.got()); n != 2 {
		t.Errorf("%d letters", n)
	}
}

// Anyone may sign up by an address: until it is confirmed, no mail to it has a text of theirs.
func TestNoWordsOfStrangers(t *testing.T) {
	t.Parallel()
	e := newEnv(t, newPostOffice(t, false), mail.NoTLS)
	e.query("INSERT INTO customers (id, name, email, tier, language) VALUES ('c2', 'Ada', 'ana@example.com', 'pro', 'pt-BR')")
	for customer, address := range map[string]string{"c1": "ada@example.com", "c2": "ana@example.com"} {
		e.signInBy(customer, address)
		e.query("UPDATE identities SET verified_at = NULL")
		for _, kind := range control.MailKinds() {
			e.add(t, customer, kind, "1")
		}
	}
	if err := e.SendDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	letters := e.office.got()
	if len(letters) != 2*len(control.MailKinds()) {
		t.Fatalf("%d letters", len(letters))
	}
	for _, l := range letters {
		if strings.Contains(l.subject+l.body, "Ada") || !strings.HasPrefix(l.body, "Hello,") && !strings.HasPrefix(l.body, "Olá!") {
			t.Errorf("%s: %q", l.subject, l.body)
		}
	}
}
