//go:build !linux

package poller

import (
	"errors"
	"net/netip"
	"time"
)

// Poller is for Linux only.
type Poller struct{}

// New returns errors.ErrUnsupported.
func New() (*Poller, error) { return nil, errors.ErrUnsupported }

// Precise does nothing.
func Precise() (undo func()) { return func() {} }

// Add returns errors.ErrUnsupported.
func (*Poller) Add(int, int32) error { return errors.ErrUnsupported }

// Wait returns errors.ErrUnsupported.
func (*Poller) Wait(list []Event, _ time.Duration) ([]Event, error) {
	return list, errors.ErrUnsupported
}

// Wake does nothing.
func (*Poller) Wake() {}

// Close does nothing.
func (*Poller) Close() {}

// Dial returns errors.ErrUnsupported.
func Dial(netip.AddrPort) (int, error) { return -1, errors.ErrUnsupported }

// Connected returns errors.ErrUnsupported.
func Connected(int) error { return errors.ErrUnsupported }

// Listen returns errors.ErrUnsupported.
func Listen(addr netip.AddrPort) (int, netip.AddrPort, error) {
	return -1, addr, errors.ErrUnsupported
}

// Accept returns errors.ErrUnsupported.
func Accept(int) (int, error) { return -1, errors.ErrUnsupported }

// Read returns errors.ErrUnsupported.
func Read(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Write returns errors.ErrUnsupported.
func Write(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Close does nothing.
func Close(int) {}

// Raise returns errors.ErrUnsupported.
func Raise() (uint64, error) { return 0, errors.ErrUnsupported }

// Resolve returns errors.ErrUnsupported.
func Resolve(string) (netip.AddrPort, error) { return netip.AddrPort{}, errors.ErrUnsupported }
