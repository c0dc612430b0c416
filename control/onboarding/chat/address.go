package chat

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Behind returns an Options.Address for whoever is behind proxies: the last address that a proxy of those
// networks did not add itself.
func Behind(proxies []netip.Prefix) func(*http.Request) netip.Addr {
	return func(r *http.Request) netip.Addr {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return netip.Addr{} // all of those share one limit
		}
		addr = addr.Unmap().WithZone("")
		forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, text := range slices.Backward(forwarded) {
			if !slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				break
			}
			next, err := netip.ParseAddr(strings.TrimSpace(text))
			if err != nil {
				break
			}
			addr = next.Unmap().WithZone("")
		}
		return addr
	}
}
