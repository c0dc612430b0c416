package upstream

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// specialRanges lists what netip has no predicate for: ranges that never are a public
// LLM endpoint and may be something of ours.
func specialRanges() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"), // carrier NAT; some clouds' metadata
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"),
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("fec0::/10"),
		// These carry an IPv4 address inside that a translator would connect to.
		netip.MustParsePrefix("::/96"),
		netip.MustParsePrefix("64:ff9b::/96"),
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("2002::/16"),
	}
}

// publicAddr reports whether a is an ordinary address on the Internet: not private,
// loopback, link-local (cloud metadata), multicast or reserved.
func publicAddr(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range specialRanges() {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// guard is the dialer's hook between resolving and connecting: it sees the very
// address that is about to be connected to, so that a name cannot resolve to
// something else in between.
func guard(_ context.Context, network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect %s %s: %w", network, address, ErrPrivateAddress)
	}
	if !publicAddr(ap.Addr()) {
		return fmt.Errorf("connect %s: %w", ap.Addr(), ErrPrivateAddress)
	}
	return nil
}
