package telegramsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Options are what Open needs.
type Options struct {
	// URL is where the server is reached, such as http://127.0.0.1:9102: its pages are below it.
	URL string
	// State is the file that keeps the bots. "" keeps nothing.
	State string
}

// site is what a Server of Open has more than one of a test: pages for people, and a file that
// keeps the bots.
type site struct {
	url   string
	pages *template.Template
	state string
	lock  *os.File // beside the state, so that no two processes have it
}

// state is the file.
type state struct {
	Format int        `json:"telegramsim"`
	Bots   []stateBot `json:"bots"`
}

type stateBot struct {
	ID            int64  `json:"id"`
	Username      string `json:"username"`
	Token         string `json:"token"`
	Webhook       string `json:"webhook,omitempty"`
	WebhookSecret string `json:"webhook_secret,omitempty"`
}

// stateFormat is the version of the file.
const stateFormat = 1

// Open returns a Telegram for people, with the bots that the file of o has; their chats are
// forgotten. Its Handler has to be served at its URL. Close it.
func Open(o Options) (*Server, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.HasSuffix(o.URL, "/") {
		return nil, fmt.Errorf("telegramsim: URL %q: write it like http://127.0.0.1:9102", o.URL)
	}
	s := newServer()
	s.site = &site{url: o.URL, state: o.State}
	if s.site.pages, err = template.ParseFS(pageFiles, "pages/*.html"); err != nil {
		return nil, fmt.Errorf("telegramsim: pages: %w", err)
	}
	if o.State == "" {
		return s, nil
	}
	if err := s.load(); err != nil {
		s.Close()
		return nil, fmt.Errorf("telegramsim: %s: %w", o.State, err)
	}
	return s, nil
}

func (site *site) close() {
	if site.lock != nil {
		site.lock.Close()
	}
}

func (s *Server) load() error {
	var err error
	if s.site.lock, err = os.OpenFile(s.site.state+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(s.site.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("another process has it")
	}
	text, err := os.ReadFile(s.site.state)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var kept state
	if err := json.Unmarshal(text, &kept); err != nil || kept.Format != stateFormat {
		return errors.New("it is no file of this version of the simulator")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range kept.Bots {
		b := s.addBot(k.Username, k.ID, k.Token)
		s.next = max(s.next, k.ID-firstBot)
		// Larger than those of before, also in a program that goes on from where it was: nobody
		// writes a message a second for long.
		b.lastUpdate = time.Now().Unix() - 1_700_000_000
		b.lastMessage = b.lastUpdate
		if k.Webhook != "" {
			b.beginWebhook(k.Webhook, k.WebhookSecret)
		}
	}
	return nil
}

// save keeps the bots. The caller holds the lock.
func (s *Server) save() error {
	if s.site == nil || s.site.state == "" {
		return nil
	}
	kept := state{Format: stateFormat, Bots: []stateBot{}}
	for _, b := range s.sorted() {
		kept.Bots = append(kept.Bots, stateBot{b.id, b.username, b.token, b.webhook.url, b.webhook.secret})
	}
	text, err := json.MarshalIndent(kept, "", "  ")
	if err == nil {
		err = WritePrivate(s.site.state, string(text)+"\n")
	}
	if err != nil {
		return fmt.Errorf("keep the bots: %w", err)
	}
	return nil
}

// WritePrivate makes a file that only its owner reads, or replaces it, whole or not at all.
func WritePrivate(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, text)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}

// botName is how bots may be called (core.telegram.org/bots/features, "Creating a new bot").
var botName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{1,28}[Bb][Oo][Tt]$`)

// ErrTaken: there is a bot of that name.
var ErrTaken = errors.New("this username is already taken")

// ErrName: no bot may be called so.
var ErrName = errors.New("a bot's username has 5 to 32 letters, digits and underscores, and ends in bot")

// Register makes a bot as BotFather does: with a name that no other has, which is kept.
func (s *Server) Register(username string) (*Bot, error) {
	if !botName.MatchString(username) {
		return nil, ErrName
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(username) != nil {
		return nil, ErrTaken
	}
	b := s.newBot(username)
	if err := s.save(); err != nil {
		delete(s.bots, b.token)
		return nil, err
	}
	return b, nil
}

// Bot returns the bot of that name, nil without one.
func (s *Server) Bot(username string) *Bot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(username)
}

func (s *Server) find(username string) *Bot {
	for _, b := range s.bots {
		if strings.EqualFold(b.username, username) {
			return b
		}
	}
	return nil
}
