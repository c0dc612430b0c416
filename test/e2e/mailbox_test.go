package e2e_test

import (
	"fmt"
	"io"
	"maps"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// mailbox is an SMTP server that counts what it gets.
type mailbox struct {
	port int

	mu  sync.Mutex
	got map[string]map[string]int // by receiver and subject
	ids map[string]int            // by the number that a Message-ID begins with
}

func newMailbox(t *testing.T) *mailbox {
	t.Helper()
	m := &mailbox{got: make(map[string]map[string]int), ids: make(map[string]int)}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{box: m}, nil }))
	m.port = testenv.Serve(t, server)
	return m
}

// arguments make a billing-worker send its mails here.
func (m *mailbox) arguments() []string {
	return []string{
		"--smtp-host", "127.0.0.1", "--smtp-port", fmt.Sprint(m.port), "--smtp-tls", "none",
		"--mail-from", "billing@example.net", "--dashboard-url", "https://app.example.invalid/",
	}
}

// letters returns the subjects of the mails to a receiver, sorted, with how many there are
// of each.
func (m *mailbox) letters(to string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, subject := range slices.Sorted(maps.Keys(m.got[to])) {
		out = append(out, fmt.Sprint(m.got[to][subject], " x ", subject))
	}
	return out
}

// arrived returns how often the mail of a number came.
func (m *mailbox) arrived(number string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[number]
}

// mailSession is one connection.
type mailSession struct {
	box *mailbox
	to  string
}

func (s *mailSession) Reset()                                    {}
func (s *mailSession) Logout() error                             { return nil }
func (s *mailSession) Mail(string, *smtp.MailOptions) error      { return nil }
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error { s.to = to; return nil }
func (s *mailSession) Data(r io.Reader) error {
	msg, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if s.box.got[s.to] == nil {
		s.box.got[s.to] = make(map[string]int)
	}
	s.box.got[s.to][subject]++
	number, _, _ := strings.Cut(strings.TrimPrefix(msg.Header.Get("Message-Id"), "<mail-"), ".")
	s.box.ids[number]++
	return nil
}
