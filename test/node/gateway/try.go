//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// attempt is what came of a connection: an answer or an error.
type attempt struct {
	Answer string `json:"answer"`
	Error  string `json:"error"`
}

// patience is how long a connection gets. One that a policy drops takes all of it.
const patience = 3 * time.Second

// try makes one connection to an address and returns what was answered there. kind is tcp for a greeting,
// tls for the name in a certificate, http for a GET, and dns-udp and dns-tcp for the address of token-proxy's Service.
func try(ctx context.Context, kind, address string) attempt {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said, err := ask(ctx, kind, address)
	if err != nil {
		return attempt{Error: err.Error()}
	}
	return attempt{Answer: said}
}

func ask(ctx context.Context, kind, address string) (string, error) {
	var dialer net.Dialer
	switch kind {
	case "tcp":
		c, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return "", err
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		_ = c.SetDeadline(deadline) // what fails then, reading does
		line, err := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(line), err
	case "tls":
		// Who it is does not matter: that it answers does.
		c, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", address)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName, nil
	case "http":
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
		if err != nil {
			return "", err
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Sprintf("%d %s", res.StatusCode, body), err
	case "dns-udp", "dns-tcp":
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, strings.TrimPrefix(kind, "dns-"), address)
		}}
		found, err := resolver.LookupNetIP(ctx, "ip4", "token-proxy.platform.svc.cluster.local.")
		if err != nil {
			return "", err
		}
		return found[0].String(), nil
	default:
		return "", fmt.Errorf("no kind of attempt: %s", kind)
	}
}
