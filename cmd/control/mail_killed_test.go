package main_test

import (
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// trap is an SMTP server that lets something happen when a mail has arrived whole, and
// before it says so.
type trap struct {
	mu      sync.Mutex
	letters []string
	arrived func(letter string)
}

type trapVisit struct{ trap *trap }

func (v trapVisit) Reset()                               {}
func (v trapVisit) Logout() error                        { return nil }
func (v trapVisit) Mail(string, *smtp.MailOptions) error { return nil }
func (v trapVisit) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (v trapVisit) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	v.trap.mu.Lock()
	v.trap.letters = append(v.trap.letters, string(b))
	arrived := v.trap.arrived
	v.trap.mu.Unlock()
	if arrived != nil {
		arrived(string(b))
	}
	return err
}

// count returns how many letters have a text in them.
func (t *trap) count(text string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, l := range t.letters {
		n += strings.Count(l, text)
	}
	return n
}

// A sender that is killed after its mail was taken, and before that is noted, sends it no
// second time, and neither does anybody else: a mail goes out at most once. What may have
// gone out is shown. The mails beside it go out.
func TestKilledBetweenSendingAndNoting(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	tr := &trap{}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return trapVisit{tr}, nil }))
	server.ErrorLog = log.New(io.Discard, "", 0) // of those that are killed
	port := testenv.Serve(t, server)
	world.env["SMTP_HOST"], world.env["SMTP_PORT"], world.env["SMTP_TLS"] = "127.0.0.1", fmt.Sprint(port), "none"
	world.env["MAIL_FROM"], world.env["DASHBOARD_URL"] = "billing@example.net", "https://app.example.invalid/"
	world.pg.Query("UPDATE customers SET email = 'ada@example.com' WHERE id = '" + world.customer + "'")
	add := func(n int) {
		t.Helper()
		err := world.store.InTx(t.Context(), func(tx *store.Tx) error {
			fresh, err := tx.AddMail(t.Context(), control.Mail{CustomerID: world.customer, Kind: control.MailBack, Cause: fmt.Sprint(n), Params: map[string]any{"name": fmt.Sprintf("Number%dX", n)}})
			if err == nil && !fresh {
				err = fmt.Errorf("mail %d is there already", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const kills = 3
	for n := range kills {
		add(2 * n)
		add(2*n + 1)
		died := make(chan struct{})
		started := make(chan *worker, 1)
		var once sync.Once
		tr.mu.Lock()
		tr.arrived = func(string) {
			once.Do(func() {
				w := <-started
				_ = w.cmd.Process.Kill()
				close(died)
			})
		}
		tr.mu.Unlock()
		w := startWorker(t, world.env)
		started <- w
		await(t, "the worker to be killed", func() bool {
			select {
			case <-died:
				return true
			default:
				return false
			}
		}, w.said)
		w.end(os.Kill)
	}
	tr.mu.Lock()
	tr.arrived = nil
	tr.mu.Unlock()
	w := startWorker(t, world.env)
	// Of the last one it is noted after it arrived.
	await(t, "the other mails to be noted as sent", func() bool {
		return strings.TrimSpace(world.pg.Query("SELECT count(*) FILTER (WHERE claimed_at IS NULL) = 0 AND count(sent_at) >= "+fmt.Sprint(kills)+" FROM mails")) == "t"
	}, w.said)
	for n := range 2 * kills {
		if got := tr.count(fmt.Sprintf("Number%dX", n)); got != 1 {
			t.Errorf("mail %d went out %d times", n, got)
		}
	}
	list, err := world.store.UncertainMails(t.Context(), 0, 100)
	if err != nil || len(list) != kills {
		t.Errorf("%d mails are uncertain, %v, want %d", len(list), err, kills)
	}
	if got := strings.TrimSpace(world.pg.Query("SELECT count(sent_at) FROM mails")); got != fmt.Sprint(kills) {
		t.Errorf("%s mails are noted as sent, want %d", got, kills)
	}
}
