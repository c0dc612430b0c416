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
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "unavailable", "There are too many event streams.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), streamFor)
	defer cancel()
	s := &stream{w: w, to: http.NewResponseController(w)}
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
	cancel()
	beats.Wait()
	switch {
	case s.begun && err == nil:
		_ = s.write("event: end\ndata: {}\n\n", false) // the client may be gone
	case s.begun:
		if ctx.Err() == nil && !errors.Is(err, control.ErrNotFound) {
			h.o.Logger.Warn("an event stream ends", "error", err)
		}
	case err != nil:
		h.fail(w, r, err)
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
