package control

import "errors"

// Kinds of failure that callers tell apart with errors.Is. The text of the wrapping
// error says which thing was meant.
var (
	// ErrNotFound: there is no such customer, box, token, period, replica or dead letter.
	ErrNotFound = errors.New("not found")
	// ErrExists: a thing with this unique name is there already.
	ErrExists = errors.New("already exists")
	// ErrInvalid: the caller's input cannot be accepted.
	ErrInvalid = errors.New("invalid")
	// ErrConflict: someone else has it in hand, or changed it meanwhile.
	ErrConflict = errors.New("conflict")
	// ErrReused: a refresh token was shown again that has its successor. Whoever has a
	// copy of it is not known, and so its session is over.
	ErrReused = errors.New("refresh token was used before")
	// ErrUnavailable: an outside system that is needed does not answer, or is overloaded.
	ErrUnavailable = errors.New("does not answer")
	// ErrSchema: the database's schema is not the one that this build needs.
	ErrSchema = errors.New("database schema does not fit this build")
	// ErrFenced: this process led, and another one has begun to lead since.
	ErrFenced = errors.New("another process leads by now")
)

// UnpaidError: an invoice has to be paid first. It is ErrInvalid.
type UnpaidError struct {
	// URL is where it can be paid. Only the customer may see it.
	URL string
}

func (e *UnpaidError) Error() string { return "an invoice is not paid" }

// Unwrap returns ErrInvalid.
func (e *UnpaidError) Unwrap() error { return ErrInvalid }
