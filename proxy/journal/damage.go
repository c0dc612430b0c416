package journal

import (
	"errors"
	"fmt"
)

// errEnd is the end of the log.
var errEnd = errors.New("end of the log")

// DamageError says what in a journal cannot be trusted.
type DamageError struct {
	Part   string // header, slot, log
	Reason string
	Stale  bool // not damaged: the machine restarted before the file reached the disk
}

func (e *DamageError) Error() string { return "journal: damaged " + e.Part + ": " + e.Reason }

func damagef(part, format string, args ...any) *DamageError {
	return &DamageError{Part: part, Reason: fmt.Sprintf(format, args...)}
}
