package operator

import (
	"context"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Books is where it is written what boxes shall be, and what has become of them; see
// customers.Boxes. Its methods may be called by any number of goroutines, and again after an
// error, whose effect may then have taken place.
type Books interface {
	// Unfinished lists the boxes that are not destroyed, oldest first.
	Unfinished(ctx context.Context) ([]control.Box, error)
	// Desired reads what a box shall be; control.ErrNotFound if there is no such box.
	Desired(ctx context.Context, boxID string) (control.DesiredBox, error)
	// Report notes what was found or done.
	Report(ctx context.Context, r control.BoxReport) error
	// RegisterToken makes a token that is in the box's Secret one that the proxies know. It
	// returns once they may know it. It is control.ErrInvalid for a box that is to be destroyed, or of a customer
	// that was cancelled, and control.ErrConflict for a token that was revoked or is another box's: then the
	// Secret needs another one. The digest of a token that is registered already changes nothing.
	RegisterToken(ctx context.Context, boxID string, token contract.Token) (control.ProxyToken, error)
	// RevokeTokens revokes all tokens of a box but one ("" for none), after overlap or at once
	// if that is 0; it returns once the proxies may know. Tokens that end already end no later.
	RevokeTokens(ctx context.Context, boxID, butTokenID string, overlap time.Duration) error
}

// booksTimeout bounds a call of the books: a database that is silent must not hold all workers.
const booksTimeout = 30 * time.Second

// timedBooks are books whose every call ends.
type timedBooks struct{ books Books }

// Unfinished implements Books.
func (b timedBooks) Unfinished(ctx context.Context) ([]control.Box, error) {
	ctx, cancel := context.WithTimeout(ctx, booksTimeout)
	defer cancel()
	return b.books.Unfinished(ctx)
}

// Desired implements Books.
func (b timedBooks) Desired(ctx context.Context, boxID string) (control.DesiredBox, error) {
	ctx, cancel := context.WithTimeout(ctx, booksTimeout)
	defer cancel()
	return b.books.Desired(ctx, boxID)
}

// Report implements Books.
func (b timedBooks) Report(ctx context.Context, r control.BoxReport) error {
	ctx, cancel := context.WithTimeout(ctx, booksTimeout)
	defer cancel()
	return b.books.Report(ctx, r)
}

// RegisterToken implements Books.
func (b timedBooks) RegisterToken(ctx context.Context, boxID string, token contract.Token) (control.ProxyToken, error) {
	ctx, cancel := context.WithTimeout(ctx, booksTimeout)
	defer cancel()
	return b.books.RegisterToken(ctx, boxID, token)
}

// RevokeTokens implements Books.
func (b timedBooks) RevokeTokens(ctx context.Context, boxID, butTokenID string, overlap time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, booksTimeout)
	defer cancel()
	return b.books.RevokeTokens(ctx, boxID, butTokenID, overlap)
}
