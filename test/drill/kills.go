package main

import (
	"fmt"
	"time"
)

// kill is one process that was killed.
type kill struct {
	kind    faultKind
	point   string // where, if at a commit point
	proxy   bool
	streams int // open there just then; proxies only
	all     int // open everywhere
}

func (in *injector) noteKill(kind faultKind, point string, i int) {
	k := kill{kind: kind, point: point}
	switch kind {
	case killProxyAt:
		k.proxy = true
		k.streams, k.all = in.watch.lately(i)
	case killProxy, loseProxy:
		k.proxy = true
		k.streams, k.all = in.load.openStreams(i)
	default:
		_, k.all = in.load.openStreams(-1)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.kills = append(in.kills, k)
}

// weak says what a run of this length should have had and did not. Only a long one is
// asked to prove anything.
func (in *injector) weak(during time.Duration) (out []string) {
	const long = 5 * time.Minute
	if during < long {
		return nil
	}
	proxies, busy := in.proxyKills()
	if want := int(during / (18 * time.Second)); len(in.kills) < want {
		out = append(out, fmt.Sprintf("%d kills, at least %d are due in %v", len(in.kills), want, during))
	}
	if 2*busy < proxies {
		out = append(out, fmt.Sprintf("only %d of %d kills of proxies with %d or more streams open there", busy, proxies, manyStreams))
	}
	return out
}

// manyStreams is how many streams must be open at a proxy for its kill to count as one
// in the middle of work.
const manyStreams = 50

// proxyKills counts the kills of proxies, and those of them in the middle of work.
func (in *injector) proxyKills() (all, busy int) {
	for _, k := range in.kills {
		if k.proxy {
			if all++; k.streams >= manyStreams {
				busy++
			}
		}
	}
	return all, busy
}
