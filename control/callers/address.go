package callers

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Forwarded is the header in which proxies say whom they ask for.
const Forwarded = "X-Forwarded-For"

// Address is who is at the other end of a request, behind proxies of those networks: the last address that one of
// them did not add itself. A proxy that names what is no address is itself whom the request is of. It is the zero value
// if the request itself came from no address: all of those are one caller.
func Address(r *http.Request, proxies []netip.Prefix) netip.Addr {
	addr := Peer(r)
	forwarded := strings.Split(strings.Join(r.Header.Values(Forwarded), ","), ",")
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

// Peer is who has sent a request, whomever it asks for.
func Peer(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// Subnet is what an address is limited by: of IPv6 the /64, since who has one address has
// all of it.
func Subnet(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr().String()
		}
	}
	return a.String()
}
