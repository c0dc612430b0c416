package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// laterBooks are books that can be asked before Postgres was reached: they do not answer then. Who
// asks which boxes are unfinished has just begun to lead, and nobody who led before writes after that.
type laterBooks struct {
	books atomic.Pointer[customers.Boxes]

	leading sync.Mutex
	leads   bool
}

var _ operator.Books = (*laterBooks)(nil)

func (l *laterBooks) set(books *customers.Boxes) { l.books.Store(books) }

// lead returns the books of a process that leads.
func (l *laterBooks) lead(ctx context.Context) (operator.Books, error) {
	l.leading.Lock()
	defer l.leading.Unlock()
	books, err := l.get()
	if err != nil || l.leads {
		return books, err
	}
	led, err := l.books.Load().Lead(ctx)
	if err != nil {
		return nil, err
	}
	l.leads = true
	l.books.Store(led)
	return led, nil
}

func (l *laterBooks) get() (operator.Books, error) {
	books := l.books.Load()
	if books == nil {
		return nil, fmt.Errorf("Postgres: %w yet", control.ErrUnavailable)
	}
	return books, nil
}

func (l *laterBooks) Unfinished(ctx context.Context) ([]control.Box, error) {
	books, err := l.lead(ctx)
	if err != nil {
		return nil, err
	}
	return books.Unfinished(ctx)
}

func (l *laterBooks) Desired(ctx context.Context, boxID string) (control.DesiredBox, error) {
	books, err := l.get()
	if err != nil {
		return control.DesiredBox{}, err
	}
	return books.Desired(ctx, boxID)
}

func (l *laterBooks) Report(ctx context.Context, r control.BoxReport) error {
	books, err := l.get()
	if err != nil {
		return err
	}
	return books.Report(ctx, r)
}

func (l *laterBooks) RegisterToken(ctx context.Context, boxID string, token contract.Token) (control.ProxyToken, error) {
	books, err := l.get()
	if err != nil {
		return control.ProxyToken{}, err
	}
	return books.RegisterToken(ctx, boxID, token)
}

func (l *laterBooks) RevokeTokens(ctx context.Context, boxID, butTokenID string, overlap time.Duration) error {
	books, err := l.get()
	if err != nil {
		return err
	}
	return books.RevokeTokens(ctx, boxID, butTokenID, overlap)
}
