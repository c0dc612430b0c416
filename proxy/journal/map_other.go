//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package journal

import (
	"errors"
	"os"
)

// A journal needs files that can be locked and mapped.

func flock(*os.File) error                    { return errors.ErrUnsupported }
func closeLocked(f *os.File) error            { return f.Close() }
func mapFile(*os.File, int64) ([]byte, error) { return nil, errors.ErrUnsupported }
func unmap([]byte) error                      { return nil }
func syncMapping([]byte) error                { return errors.ErrUnsupported }
func allocate(*os.File, int64) error          { return errors.ErrUnsupported }
func bootID() [2]uint64                       { return [2]uint64{} }
