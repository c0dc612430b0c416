package mail_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/mail"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// letter is a mail as it arrived.
type letter struct {
	to, subject, body, id string
	header                netmail.Header
	encrypted             bool
}

// postOffice is an SMTP server.
type postOffice struct {
	port   int
	config *tls.Config // with which clients trust it

	mu      sync.Mutex
	letters []letter
	// refuse, if set, is asked before a mail is taken; drop has the connection end instead
	// of an answer to a mail that was taken.
	refuse func(to string) error
	drop   bool
}

func newPostOffice(t *testing.T, withTLS bool) *postOffice {
	t.Helper()
	o := &postOffice{}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &visit{office: o, conn: c}, nil }))
	server.Domain = "mx.example.com"
	server.ErrorLog = quietLog{}
	if withTLS {
		server.TLSConfig, o.config = selfSigned(t)
	}
	o.port = testenv.Serve(t, server)
	return o
}

type quietLog struct{}

func (quietLog) Printf(string, ...any) {}
func (quietLog) Println(...any)        {}

// visit is one connection.
type visit struct {
	office *postOffice
	conn   *smtp.Conn
	to     string
}

func (v *visit) Reset()                               {}
func (v *visit) Logout() error                        { return nil }
func (v *visit) Mail(string, *smtp.MailOptions) error { return nil }
func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.to = to
	v.office.mu.Lock()
	defer v.office.mu.Unlock()
	if v.office.refuse != nil {
		return v.office.refuse(to)
	}
	return nil
}

func (v *visit) Data(r io.Reader) error {
	m, err := netmail.ReadMessage(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		return err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		return err
	}
	_, encrypted := v.conn.TLSConnectionState()
	v.office.mu.Lock()
	defer v.office.mu.Unlock()
	v.office.letters = append(v.office.letters, letter{
		to: v.to, subject: subject, body: string(body), id: m.Header.Get("Message-Id"), header: m.Header, encrypted: encrypted,
	})
	if v.office.drop {
		v.conn.Conn().Close()
	}
	return nil
}

func (o *postOffice) got() []letter {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]letter(nil), o.letters...)
}

func (o *postOffice) set(refuse func(string) error, drop bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuse, o.drop = refuse, drop
}

func selfSigned(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

// env is a Postgres with one customer, and a sender.
type env struct {
	*mail.Sender
	store  *store.Store
	pg     *testenv.PostgresServer
	office *postOffice
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newEnv(t *testing.T, office *postOffice, security mail.TLS) *env {
	t.Helper()
	e := &env{pg: storetest.Postgres(t), office: office}
	var err error
	if e.store, err = store.Open(t.Context(), e.pg.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.store.Close)
	e.pg.Query("INSERT INTO customers (id, name, email, tier) VALUES ('c1', 'Ada', 'ada@example.com', 'pro')")
	e.Sender, err = mail.NewSender(e.store, mail.Options{
		Host: "127.0.0.1", Port: office.port, TLS: security, TLSConfig: office.config, From: "OpenClaw <billing@example.net>",
		Dashboard: "https://app.example.invalid/", Timeout: 5 * time.Second, Logger: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// params has what every template asks for.
func params() map[string]any {
	return map[string]any{
		"name": "Ada", "tier": "Pro", "tokens": 5_000_000, "used": 4_500_000, "period_end": "2031-02-28", "attempts_left": 1,
		"pay_url": "https://invoice.example.invalid/1", "trial_end": "2031-02-14", "at": "2031-02-14 12:00",
	}
}

func (e *env) add(t *testing.T, customer, kind, cause string) {
	t.Helper()
	err := e.store.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.AddMail(t.Context(), control.Mail{CustomerID: customer, Kind: kind, Cause: cause, Params: params()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (e *env) query(sql string) string { return strings.TrimSpace(e.pg.Query(sql)) }

func TestEveryMailInEveryLanguage(t *testing.T) {
	t.Parallel()
	e := newEnv(t, newPostOffice(t, false), mail.NoTLS)
	e.query("INSERT INTO customers (id, name, email, tier, language) VALUES ('c2', 'Ana', 'ana@example.com', 'pro', 'pt-BR')")
	e.signInBy("c1", "ada@example.com")
	e.signInBy("c2", "ana@example.com")
	for _, kind := range control.MailKinds() {
		e.add(t, "c1", kind, "1")
		e.add(t, "c2", kind, "1")
		e.add(t, "c2", kind, "1") // the same cause
	}
	if err := e.SendDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	letters := e.office.got()
	if len(letters) != 2*len(control.MailKinds()) {
		t.Fatalf("%d letters", len(letters))
	}
	ids, subjects := make(map[string]bool), make(map[string]bool)
	for _, l := range letters {
		ids[l.id], subjects[l.subject] = true, true
		if strings.Contains(l.body, "{{") || strings.Contains(l.body, "<no value>") || !strings.Contains(l.body, "Ada") ||
			l.header.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(l.header.Get("From"), "billing@example.net") {
			t.Errorf("%+v", l)
		}
	}
	if len(ids) != len(letters) || len(subjects) != len(letters) {
		t.Errorf("%d message ids and %d subjects of %d letters: %v", len(ids), len(subjects), len(letters), subjects)
	}
	for _, want := range []string{"to ana@example.com: Você usou 90 % dos seus tokens: 4.500.000 dos 5.000.000", "to ada@example.com: You have used 90 % of your tokens: 4,500,000 of the 5,000,000"} {
		found := false
		for _, l := range letters {
			_, numbers, _ := strings.Cut(want, "tokens: ")
			found = found || strings.HasPrefix(want, "to "+l.to+": "+l.subject+": ") && strings.Contains(l.body, numbers)
		}
		if !found {
			t.Errorf("no letter %q in %+v", want, letters)
		}
	}
	all := fmt.Sprint(letters)
	for _, day := range []string{"on February 28, 2031", "em\n28 de fevereiro de 2031", "Your trial ends on February 14, 2031", "Seu teste termina em 14 de fevereiro de 2031"} {
		if !strings.Contains(strings.ReplaceAll(all, "\r", ""), day) {
			t.Errorf("no letter has the day %q", day)
		}
	}
	// Again nothing is due.
	if err := e.SendDue(t.Context()); err != nil || len(e.office.got()) != len(letters) {
		t.Errorf("again: %v, %d letters", err, len(e.office.got()))
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	office := newPostOffice(t, false)
	e := newEnv(t, office, mail.NoTLS)
	state := func(want string) {
		t.Helper()
		if got := e.query("SELECT string_agg(concat_ws(' ', cause, attempts, sent_at IS NOT NULL, claimed_at IS NOT NULL, failed_at IS NOT NULL), ',' ORDER BY id) FROM mails"); got != want {
			t.Errorf("mails %q, want %q", got, want)
		}
	}
	due := func() { e.query("UPDATE mails SET next_attempt_at = now()") }

	office.set(func(string) error { return &smtp.SMTPError{Code: 451, Message: "later"} }, false)
	e.add(t, "c1", control.MailBack, "busy")
	if err := e.SendDue(t.Context()); err == nil {
		t.Error("no error of a server that is busy")
	}
	state("busy 1 f f f")
	if err := e.SendDue(t.Context()); err != nil { // it is not due yet
		t.Error(err)
	}
	office.set(nil, false)
	due()
	if err := e.SendDue(t.Context()); err != nil {
		t.Error(err)
	}
	state("busy 2 t t f")

	office.set(func(string) error { return &smtp.SMTPError{Code: 550, Message: "no such user ada@example.com"} }, false)
	e.add(t, "c1", control.MailBack, "unknown")
	if err := e.SendDue(t.Context()); err == nil || strings.Contains(err.Error(), "ada@") {
		t.Errorf("the error of an unknown address is %v", err)
	}
	state("busy 2 t t f,unknown 1 f f t")
	due()
	if err := e.SendDue(t.Context()); err != nil {
		t.Error(err)
	}

	// It was taken, and that was never said: it must not go out twice.
	office.set(nil, true)
	e.add(t, "c1", control.MailBack, "dropped")
	if err := e.SendDue(t.Context()); err != nil {
		t.Error(err)
	}
	office.set(nil, false)
	due()
	if err := e.SendDue(t.Context()); err != nil {
		t.Error(err)
	}
	state("busy 2 t t f,unknown 1 f f t,dropped 1 f t f")
	if n := len(office.got()); n != 2 {
		t.Errorf("%d letters", n)
	}

	// Who has no address any more gets none.
	e.add(t, "c1", control.MailBack, "erased")
	e.query("UPDATE customers SET email = NULL")
	if err := e.SendDue(t.Context()); err == nil {
		t.Error("no error without an address")
	}
	state("busy 2 t t f,unknown 1 f f t,dropped 1 f t f,erased 1 f f t")
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	e := newEnv(t, &postOffice{port: port}, mail.NoTLS)
	e.add(t, "c1", control.MailBack, "1")
	if err := e.SendDue(t.Context()); err == nil {
		t.Error("no error")
	}
	if got := e.query("SELECT claimed_at IS NULL AND failed_at IS NULL AND error IS NOT NULL FROM mails"); got != "t" {
		t.Error("it is not tried again")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	safe := newEnv(t, newPostOffice(t, true), mail.StartTLS)
	safe.add(t, "c1", control.MailBack, "1")
	if err := safe.SendDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := safe.office.got(); len(l) != 1 || !l[0].encrypted {
		t.Errorf("letters %+v", l)
	}
	// A server without it, or one that pretends, gets nothing.
	plain := newEnv(t, newPostOffice(t, false), mail.StartTLS)
	plain.add(t, "c1", control.MailBack, "1")
	other := newPostOffice(t, true)
	other.config = nil // its certificate is nobody's
	untrusted := newEnv(t, other, mail.StartTLS)
	untrusted.add(t, "c1", control.MailBack, "1")
	for name, e := range map[string]*env{"plain": plain, "untrusted": untrusted} {
		if err := e.SendDue(t.Context()); err == nil || len(e.office.got()) != 0 {
			t.Errorf("%s: %v, %d letters", name, err, len(e.office.got()))
		}
	}
	if _, err := mail.NewSender(safe.store, mail.Options{Host: "h", Port: 25, TLS: mail.NoTLS, Username: "u", Password: "p", From: "a@example.com"}); err == nil {
		t.Error("a password without TLS is accepted")
	}
}

// With the jobs of two workers, and four more callers, each mail arrives once.
func TestOnceWithJobs(t *testing.T) {
	t.Parallel()
	e := newEnv(t, newPostOffice(t, false), mail.NoTLS)
	if _, err := jobs.Migrate(t.Context(), e.store, discard()); err != nil {
		t.Fatal(err)
	}
	var workers []*jobs.Jobs
	for range 2 {
		j, err := jobs.New(t.Context(), e.store, discard(), &jobs.Handlers{SendMails: e.SendDue})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(j.Close)
		if err := j.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		workers = append(workers, j)
	}
	const n = 40
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			for range 2 { // the second time it is there
				errs[i] = errors.Join(errs[i], e.store.InTx(t.Context(), func(tx *store.Tx) error {
					_, err := workers[i%2].AddMail(t.Context(), tx, control.Mail{CustomerID: "c1", Kind: control.MailBack, Cause: fmt.Sprint(i), Params: params()})
					return err
				}))
			}
			if i%10 == 0 {
				errs[i] = errors.Join(errs[i], e.SendDue(t.Context()))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); e.query("SELECT count(*) FROM mails WHERE sent_at IS NULL") != "0"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not all of them are sent")
		}
	}
	for _, j := range workers {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	ids := make(map[string]int)
	for _, l := range e.office.got() {
		ids[l.id]++
	}
	if len(ids) != n || len(e.office.got()) != n {
		t.Errorf("%d letters with %d ids, want %d", len(e.office.got()), len(ids), n)
	}
}

func TestLimitNotices(t *testing.T) {
	t.Parallel()
	e := newEnv(t, newPostOffice(t, false), mail.NoTLS)
	n := &mail.LimitNotices{Store: e.store, Add: func(ctx context.Context, tx *store.Tx, m control.Mail) (bool, error) { return tx.AddMail(ctx, m) }}
	notify := func(settled int64, want int) {
		t.Helper()
		e.query(fmt.Sprintf("UPDATE usage_periods SET settled_tokens = %d", settled))
		if got, err := n.Notify(t.Context()); err != nil || got != want {
			t.Errorf("with %d: %d mails, %v, want %d", settled, got, err, want)
		}
	}
	e.query(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version)
		VALUES ('c1', 'now', now() - interval '1 day', now() + interval '1 day', 1000, 1), ('c1', 'before', now() - interval '2 days', now() - interval '1 day', 10, 1)`)
	notify(899, 0)
	notify(900, 1)
	notify(989, 0)
	notify(990, 1) // what is left is too little for most requests
	notify(1000, 0)
	e.query("UPDATE usage_periods SET limit_tokens = 2000")
	notify(1000, 0)
	notify(1900, 1)
	notify(2000, 1)
	if got := e.query("SELECT string_agg(kind || ' ' || cause, ',' ORDER BY id) FROM mails"); got != "near_limit now/1000,limit_reached now/1000,near_limit now/2000,limit_reached now/2000" {
		t.Errorf("mails %s", got)
	}
	if err := e.SendDue(t.Context()); err != nil || len(e.office.got()) != 4 {
		t.Errorf("%v, %d letters", err, len(e.office.got()))
	}
	// An agent that sends 40 tokens each time has stopped with 290 left, though that is a tenth; one greater request changes nothing.
	e.query("UPDATE usage_periods SET limit_tokens = 3000; SELECT usage_events_ensure_month(now() - interval '1 minute')")
	for seq, prompt := range []int{40, 40, 40, 400} {
		e.query(fmt.Sprintf(`INSERT INTO usage_events SELECT 'r', %d, now() - interval '1 minute', 'now', 'x', 'x', 'c1', 'b', 't', 'pro', 'k', 'k', 'openai', 'x', %d, 0, 1, 0, 1, 0, 1, 'upstream', 'ok', 200, 1, 1`, seq+1, prompt))
	}
	notify(2704, 1)
	notify(2705, 1)
	if got := e.query("SELECT string_agg(kind, ',' ORDER BY id) FROM mails WHERE cause = 'now/3000'"); got != "near_limit,limit_reached" {
		t.Errorf("mails %s", got)
	}
	// It is told so at once, and nothing else when its prompts have become smaller.
	e.query("UPDATE usage_periods SET limit_tokens = 3100")
	notify(2900, 1)
	e.query("UPDATE usage_events SET prompt_tokens = 0")
	notify(2801, 0)
	if got := e.query("SELECT string_agg(kind, ',' ORDER BY id) FROM mails WHERE cause = 'now/3100'"); got != "limit_reached" {
		t.Errorf("mails %s", got)
	}
	e.query("UPDATE customers SET status = 'suspended'; UPDATE usage_periods SET limit_tokens = 1500")
	notify(1500, 0)
}
