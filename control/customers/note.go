package customers

import (
	"context"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// WithNote returns a copy of s whose changes call note, last in their transaction, with what
// the method will return: control.Customer, control.ProxyToken, Created, LimitChanged,
// Rotated, or nil. An error of note undoes the change. So a caller can keep its own record
// of a change that is there if and only if the change is.
func (s *Service) WithNote(note func(ctx context.Context, tx *store.Tx, result any) error) *Service {
	c := *s
	c.note = note
	return &c
}

// noted calls what WithNote was given.
func (s *Service) noted(ctx context.Context, tx *store.Tx, result any) error {
	if s.note == nil {
		return nil
	}
	return s.note(ctx, tx, result)
}
