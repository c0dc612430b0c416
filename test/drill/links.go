package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// link is one way of one program to what it depends on, where the network between the
// two can be broken. Its methods are not for concurrent use on one link.
type link struct {
	name         string // such as "proxy 1 to redis"
	port, target int    // where the program connects, and to what
	server       *toxiproxy.ApiServer
	proxy        *toxiproxy.Proxy
}

// links are all of them.
type links struct {
	server *toxiproxy.ApiServer // never listens: it only holds what the links share
	all    []*link
}

func newLinks() *links {
	return &links{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// add opens a link to a loopback port.
func (l *links) add(name string, target int) (*link, error) {
	port, err := localserver.FreePort()
	if err != nil {
		return nil, err
	}
	k := &link{name: name, port: port, target: target, server: l.server}
	k.renew()
	if err := k.proxy.Start(); err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	l.all = append(l.all, k)
	return k, nil
}

// named returns the link of that name; nil if there is none.
func (l *links) named(name string) *link {
	for _, k := range l.all {
		if k.name == name {
			return k
		}
	}
	return nil
}

// toxicLimit bounds how long a toxic may take to get hold of the link's connections:
// one whose peer is frozen does not let it before it is thawed.
const toxicLimit = 2 * time.Second

func (k *link) renew() {
	k.proxy = toxiproxy.NewProxy(k.server, k.name, local(k.port), local(k.target))
}

// stop closes the link and its connections. Toxiproxy waits for its accept loop first, which
// waits for the lock that a toxic holds while it gets hold of a connection, for as long as a peer
// is frozen: then the link gets another proxy. The old one takes no new connections; those it has
// stay open, some with the toxic and some without, until it gets the lock and closes them.
func (k *link) stop() {
	done := make(chan struct{})
	go func(p *toxiproxy.Proxy) { p.Stop(); close(done) }(k.proxy)
	select {
	case <-done:
	case <-time.After(toxicLimit):
		k.renew() // its port is free: the listener was closed at first
	}
}

// damage breaks a link in one of the ways of netFault.
func (k *link) damage(f netFault, millis int) error {
	toxic := func(kind, stream, attributes string) error {
		text := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":{%s}}`, kind+stream, kind, stream, attributes)
		toxics := k.proxy.Toxics
		return k.bounded(func() error {
			_, err := toxics.AddToxicJson(strings.NewReader(text))
			return err
		})
	}
	var err error
	switch f {
	case netLatency:
		err = toxic("latency", "downstream", fmt.Sprintf(`"latency":%d,"jitter":%d`, millis, millis/2))
	case netCut:
		k.stop()
	case netReset:
		// What is open breaks; what comes meanwhile is reset.
		err = toxic("reset_peer", "downstream", fmt.Sprintf(`"timeout":%d`, millis))
		k.restart()
	case netDeafUp:
		err = toxic("timeout", "upstream", `"timeout":0`)
	case netDeafDown:
		err = toxic("timeout", "downstream", `"timeout":0`)
	case netTorn:
		// Every connection ends after so many bytes, in the middle of whatever it is.
		err = toxic("limit_data", "downstream", fmt.Sprintf(`"bytes":%d`, millis))
	}
	if err != nil {
		return fmt.Errorf("%s of link %s: %w", f, k.name, err)
	}
	return nil
}

// heal mends a link. Its connections are closed, since those that lost bytes must not go on. What
// stop could not close has its toxic for good, so that what lost bytes gets no later ones.
func (k *link) heal() error {
	k.stop()
	toxics := k.proxy.Toxics
	_ = k.bounded(func() error { toxics.ResetToxics(context.Background()); return nil })
	return poll(5*time.Second, func() error {
		if err := k.proxy.Start(); err != nil && err != toxiproxy.ErrProxyAlreadyStarted {
			return fmt.Errorf("heal link %s: %w", k.name, err)
		}
		return nil
	})
}

func (k *link) restart() {
	k.stop()
	_ = k.proxy.Start() // heal tries again and says what is wrong
}

// bounded waits for f, at most toxicLimit. Then it stops the link, which lets f get on if its
// connections can be closed, waits for it once more, and fails if they cannot.
func (k *link) bounded(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(toxicLimit):
		k.restart()
	}
	select {
	case err := <-done:
		return err
	case <-time.After(toxicLimit):
		return fmt.Errorf("the link's connections cannot be got hold of")
	}
}

func (l *links) close() {
	for _, k := range l.all {
		k.stop()
	}
}
