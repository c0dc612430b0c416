// Package relay is the state machine between an upstream's stream and a client's:
// bytes from the upstream in; bytes for the client, counts and an end out. It does no
// I/O, starts no goroutine and reads no clock, so that a goroutine or an event loop
// can drive it.
//
// Only whole events are passed on. An event torn by a cut never reaches the client:
// by the SSE rules it would be discarded there anyway, and without its tail the
// error event that follows stays readable.
package relay

import (
	"errors"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// End says how far a stream has come.
type End uint8

// The states of a stream.
const (
	Open   End = iota // more may come
	Done              // the face's own end mark was seen: [DONE] or message_stop
	Failed            // the upstream sent an error event
)

// ErrEventTooLarge says that one event outgrew MaxEventBytes.
var ErrEventTooLarge = errors.New("event of the upstream is too large")

// Options of a stream.
type Options struct {
	Face kimi.Face
	// HideUsage drops the extra chunk that stream_options.include_usage brings, for
	// a client that did not ask for it.
	HideUsage bool
	// Choices is how many answers were asked for at once; 0 is one. Each finishes by itself.
	Choices int
	// MaxEventBytes bounds what is held of an event that is not complete yet.
	MaxEventBytes int
}

// Stream is one stream. It is not safe for concurrent use.
type Stream struct {
	opts    Options
	pending []byte // start of an event whose end has not come yet
	scanned int    // bytes of pending that hold no end
	usage   kimi.Usage
	output  int64
	events  int64
	end     End

	finishes int // of choices
}

// Reset makes s ready for a new stream and keeps its buffer.
func (s *Stream) Reset(o Options) {
	*s = Stream{opts: o, pending: s.pending[:0]}
}

// Feed takes the next bytes of the upstream's body and appends to out what the
// client is to get. It keeps no reference to in. After the end mark bytes pass
// unread; after an error event nothing passes.
func (s *Stream) Feed(out, in []byte) ([]byte, error) {
	if s.end == Done {
		return append(out, in...), nil
	}
	if s.end == Failed {
		return out, nil
	}
	buf := in
	if len(s.pending) > 0 {
		s.pending = append(s.pending, in...)
		buf = s.pending
	}
	pos, from := 0, s.scanned
	for s.end == Open {
		n := kimi.EventEnd(buf[pos:], from)
		if n < 0 {
			break
		}
		out = s.take(out, buf[pos:pos+n])
		pos, from = pos+n, 0
	}
	rest := buf[pos:]
	switch s.end {
	case Done:
		out = append(out, rest...)
		rest = nil
	case Failed:
		rest = nil
	}
	if pos > 0 || len(s.pending) == 0 { // else it is there, and to move a large event for each read would cost
		s.pending = append(s.pending[:0], rest...) // overlapping moves are safe: append copies like copy
	}
	s.scanned = len(rest)
	if limit := s.opts.MaxEventBytes; limit > 0 && len(rest) > limit {
		return out, fmt.Errorf("%w: more than %d bytes", ErrEventTooLarge, limit)
	}
	return out, nil
}

// CloseInput says that the upstream's body has ended. An end mark that lacks only its
// blank line still counts; any other torn event is dropped.
func (s *Stream) CloseInput(out []byte) []byte {
	if s.end == Open && len(s.pending) > 0 {
		var u kimi.Usage
		if kimi.InspectEvent(s.pending, s.opts.Face, &u).Kind == kimi.EventEndMark {
			out = append(out, s.pending...)
			s.end = Done
		}
	}
	s.pending, s.scanned = s.pending[:0], 0
	return out
}

func (s *Stream) take(out, ev []byte) []byte {
	info := kimi.InspectEvent(ev, s.opts.Face, &s.usage)
	s.output += info.OutputBytes
	if info.Finish {
		s.finishes++
	}
	switch info.Kind {
	case kimi.EventEndMark:
		s.end = Done
	case kimi.EventError:
		s.end = Failed
		return kimi.Redact(out, ev)
	default:
		if info.UsageOnly && s.opts.HideUsage {
			return out
		}
	}
	if info.Kind == kimi.EventData {
		s.events++
	}
	return append(out, ev...)
}

// End returns the state of the stream.
func (s *Stream) End() End { return s.end }

// Usage returns what the upstream reported so far.
func (s *Stream) Usage() *kimi.Usage { return &s.usage }

// OutputBytes returns an upper bound for the completion tokens seen so far: the bytes
// of all text in the events, since a token has at least one byte.
func (s *Stream) OutputBytes() int64 { return s.output }

// Finished reports whether the upstream said why it stopped, for every choice, so that
// what it reported by then is final.
func (s *Stream) Finished() bool { return s.finishes >= max(s.opts.Choices, 1) }

// Events returns how many events with content were passed on: no comments, pings, errors
// or end marks.
func (s *Stream) Events() int64 { return s.events }
