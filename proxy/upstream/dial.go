package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpproxy"
	"golang.org/x/net/proxy"
)

// dialFunc opens the socket to an upstream, through the egress proxy if there is one.
type dialFunc func(ctx context.Context, addr string) (net.Conn, error)

func newDialFunc(c *Config) (dialFunc, error) {
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}
	if c.EgressProxy == "" {
		d := &net.Dialer{KeepAliveConfig: keepAlive}
		if !c.AllowPrivate {
			d.ControlContext = guard
		}
		return func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		}, nil
	}
	u, err := url.Parse(c.EgressProxy.Reveal())
	if err != nil {
		return nil, errors.New("egress_proxy: not a URL") // the error would show the password
	}
	if u.Scheme == "http" {
		timeout := c.ConnectTimeout.Std()
		return guardLiteral(c, abandonable(fasthttpproxy.FasthttpHTTPDialerDualStackTimeout(u.String(), timeout))), nil
	}
	// The operator names the egress proxy, so its own address may be private.
	d := &net.Dialer{KeepAliveConfig: keepAlive}
	return guardLiteral(c, socks5(u, d)), nil
}

// abandonable makes a dialer that knows no context return when the context ends. The
// dial itself has its own limit and then closes what nobody waits for.
func abandonable(dial fasthttp.DialFunc) dialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		type result struct {
			c   net.Conn
			err error
		}
		done := make(chan result)
		go func() {
			c, err := dial(addr)
			if errors.Is(err, fasthttp.ErrTimeout) || errors.Is(err, fasthttp.ErrDialTimeout) {
				err = fmt.Errorf("%w (%w)", err, context.DeadlineExceeded) // they do not say Timeout()
			}
			select {
			case done <- result{c, err}:
			case <-ctx.Done():
				if c != nil {
					_ = c.Close()
				}
			}
		}()
		select {
		case r := <-done:
			return r.c, r.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// socks5 dials through the package that fasthttpproxy wraps, because the wrapper sets
// no limit on the SOCKS handshake: a silent proxy would hold a goroutine and a
// descriptor for ever.
func socks5(u *url.URL, d *net.Dialer) dialFunc {
	var auth *proxy.Auth
	if u.User != nil {
		auth = &proxy.Auth{User: u.User.Username()}
		auth.Password, _ = u.User.Password()
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		p, err := proxy.SOCKS5("tcp", u.Host, auth, d)
		if err != nil {
			return nil, fmt.Errorf("socks5: %w", err)
		}
		over, ok := p.(interface {
			DialWithConn(context.Context, net.Conn, string, string) (net.Addr, error)
		})
		if !ok {
			return nil, errors.New("socks5: dialer cannot use an open connection")
		}
		c, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, fmt.Errorf("socks5 proxy: %w", err)
		}
		if _, err := over.DialWithConn(ctx, c, "tcp", addr); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("socks5 proxy: %w", err)
		}
		return c, nil
	}
}

// guardLiteral checks what can be checked when somebody else resolves the name.
func guardLiteral(c *Config, dial dialFunc) dialFunc {
	if c.AllowPrivate {
		return dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		if ap, err := netip.ParseAddrPort(addr); err == nil && !publicAddr(ap.Addr()) {
			return nil, fmt.Errorf("connect %s: %w", ap.Addr(), ErrPrivateAddress)
		}
		return dial(ctx, addr)
	}
}

func newTLSConfig(c *Config, host string) (*tls.Config, error) {
	t := &tls.Config{
		ServerName:         host,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
	}
	if c.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("upstream %q: ca_file: %w", c.Name, err)
	}
	t.RootCAs, err = x509.SystemCertPool()
	if err != nil {
		t.RootCAs = x509.NewCertPool()
	}
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("upstream %q: ca_file %s: holds no PEM certificate", c.Name, c.CAFile)
	}
	return t, nil
}
