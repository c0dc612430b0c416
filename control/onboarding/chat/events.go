package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
)

// events sends the conversation whenever it changes, until it is final.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	from := h.caller(r)
	switch ok, crowded := h.streams.begin(from); {
	case ok:
		defer h.streams.end(from)
	case crowded:
		w.Header().Set("Retry-After", "60")
		refuse(w, http.StatusTooManyRequests, "too-many-requests", "There are too many event streams from this address.")
		return
	default:
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "unavailable", "There are too many event streams.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), streamFor)
	defer cancel()
	s := &stream{w: w, to: http.NewResponseController(w)}
	// The server's limit for reading a request would end a stream that lasts longer.
	if err := s.to.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.fail(w, r, err)
		return
	}
	quiet := time.NewTicker(quietFor)
	defer quiet.Stop()
	var beats sync.WaitGroup
	beats.Go(func() {
		for {
			select {
			case <-quiet.C:
				if s.write(": still here\n\n", false) != nil {
					cancel()
					return
				}
			case <-h.draining:
				cancel()
				return
			case <-ctx.Done():
				return
			}
		}
	})
	err := h.o.Conversations.Watch(ctx, whoOf(r), h.o.Every, func(c onboarding.Conversation) error {
		raw, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return s.write(fmt.Sprintf("event: conversation\ndata: %s\n\n", raw), true)
	})
	ours := ctx.Err() != nil // it was ended, by us or by who has gone
	cancel()
	beats.Wait()
	switch {
	case s.begun && err == nil:
		// Nothing follows, so whoever connects anew by itself, as browsers do, need not hurry. It may be gone.
		_ = s.write("retry: 30000\nevent: end\ndata: {}\n\n", false)
	case s.begun:
		if !ours && !errors.Is(err, control.ErrNotFound) {
			h.o.Logger.Warn("an event stream ends", "error", err)
		}
	case ours:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "unavailable", "This server is about to end. Please connect again.")
	case err != nil:
		h.fail(w, r, err)
	}
}

// streams counts event streams.
type streams struct {
	most, mostFrom int

	mu   sync.Mutex
	open int
	from map[string]int // by address; none is 0
}

// begin lets one more stream in, unless there are too many, or, crowded, too many of its address.
func (s *streams) begin(from string) (ok, crowded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if crowded = s.from[from] >= s.mostFrom; crowded || s.open >= s.most {
		return false, crowded
	}
	s.open++
	s.from[from]++
	return true, false
}

func (s *streams) end(from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}

// stream is an open answer, to which two write.
type stream struct {
	to *http.ResponseController

	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool // headers are sent; read by others once nobody writes
}

// write writes an event; what comes before the first one is left out unless it begins the answer.
func (s *stream) write(text string, begins bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		if !begins {
			return nil
		}
		s.w.Header().Set("Content-Type", "text/event-stream")
		s.w.Header().Set("X-Accel-Buffering", "no")
		s.begun = true
	}
	if err := s.to.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.to.Flush()
}
