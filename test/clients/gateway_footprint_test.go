package clients_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

// measure has TestGatewayFootprint measure at length, and variants beside the pod's own settings.
var measure = flag.Duration("measure", 0, "measure a real gateway, idle and busy, for so long each (2m is what MEASURED.md has)")

// starterLimit is the smallest memory limit of a tier, in bytes.
const starterLimit = 1536 << 20

// variant is a way to run node.
type variant struct {
	name string
	drop []string // of the pod's environment and of node's options, what it has not
}

// footprint is what one gateway cost.
type footprint struct {
	ready, startCPU time.Duration
	started         int64 // bytes of memory when it was ready
	idle, idlePeak  int64
	idleCPU         time.Duration // per second, of the last half of the idle time
	busyPeak        int64
	busyCPU         time.Duration // per message
	messages        int
	processes       int
}

// messages is how many are answered at least; memory still grows after the first few.
const messages = 10

// What a gateway takes decides how many fit on a node, so that it comes near a tier's limit must not
// pass unseen. `go test -run TestGatewayFootprint -measure 2m -v` repeats MEASURED.md.
func TestGatewayFootprint(t *testing.T) {
	s := newSystem(t)
	s.Sim.Script(remarks)
	variants := []variant{{name: "as in the pod"}}
	if *measure > 0 {
		variants = append(variants,
			variant{"without MALLOC_ARENA_MAX", []string{"MALLOC_ARENA_MAX"}},
			variant{"without NODE_OPTIONS", []string{"NODE_OPTIONS"}},
			variant{"without --optimize-for-size", []string{"--optimize-for-size"}},
			variant{"as it comes", []string{"MALLOC_ARENA_MAX", "NODE_OPTIONS", "--optimize-for-size"}},
		)
	}
	for _, v := range variants {
		f, err := footprintOf(t, s, v)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		mib := func(n int64) int64 { return n >> 20 }
		t.Logf("| %s | %.1f s | %.1f s | %d | %d | %d | %.1f %% | %d | %.1f s | %d |", v.name, f.ready.Seconds(), f.startCPU.Seconds(),
			mib(f.started), mib(f.idle), mib(f.idlePeak), f.idleCPU.Seconds()*100, mib(f.busyPeak), f.busyCPU.Seconds(), f.processes)
		if peak := max(f.idlePeak, f.busyPeak); v.drop == nil && peak > starterLimit/10*8 {
			t.Errorf("a gateway took %d MiB, and the smallest tier allows %d, of which a fifth must be left", mib(peak), mib(starterLimit))
		}
	}
}

func footprintOf(t *testing.T, s *system, v variant) (f footprint, err error) {
	tg := telegramsim.New()
	defer tg.Close()
	bot, who := tg.NewBot("measured_bot"), telegramsim.User{ID: 4711, Name: "Ana"}
	g := prepareGateway(t, boxConfig(s, tg, who.ID), s.Customer("Measured "+v.name, "team"), bot, starterLimit>>20)
	dropped := func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains(v.drop, name)
	}
	began := time.Now()
	p, err := proc.Start(proc.Command{
		Name: "gateway", Path: g.node, Args: slices.DeleteFunc(g.args, dropped), Env: slices.DeleteFunc(g.env, dropped), Dir: filepath.Dir(g.log),
	})
	if err != nil {
		return f, err
	}
	defer p.End(30 * time.Second)
	meter, err := proc.NewMeter(p)
	if err != nil {
		return f, err
	}
	ctx := t.Context()
	err = p.Await(ctx, gatewayLimit, func(context.Context) error {
		if status, _ := g.get(openclaw.ReadinessPath); status != http.StatusOK {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	f.ready = time.Since(began)
	meter.End() // it began with the process
	f.startCPU = meter.Spent()
	if f.started, err = memoryOf(p); err != nil {
		return f, err
	}
	// The first minute still belongs to the start: databases are verified, code is thrown away.
	if f.idle, f.idlePeak, err = watch(p, *measure/2); err != nil {
		return f, err
	}
	if meter, err = proc.NewMeter(p); err != nil {
		return f, err
	}
	meter.Begin()
	since := time.Now()
	last, peak, err := watch(p, max(*measure/2, time.Second))
	if err != nil {
		return f, err
	}
	meter.End()
	f.idle, f.idlePeak = last, max(f.idlePeak, peak, f.started)
	f.idleCPU = time.Duration(float64(meter.Spent()) / time.Since(since).Seconds())
	pids, err := p.Tree()
	if err != nil {
		return f, err
	}
	f.processes = len(pids)
	meter.Begin()
	for end := time.Now().Add(*measure); f.messages < messages || time.Now().Before(end); f.messages++ {
		bot.Write(who, remark(f.messages%20))
		want := 2 * (f.messages + 1)
		wait, cancel := context.WithTimeout(ctx, gatewayLimit)
		_, err := bot.Await(wait, who.ID, func(chat []telegramsim.Message) bool { return len(chat) >= want })
		cancel()
		if err != nil {
			return f, err
		}
		now, err := memoryOf(p)
		if err != nil {
			return f, err
		}
		f.busyPeak = max(f.busyPeak, now)
	}
	meter.End()
	f.busyCPU = meter.Spent() / time.Duration(f.messages)
	return f, nil
}

// memoryOf returns the bytes of memory of a gateway and its helpers, of which some end while
// they are looked at.
func memoryOf(p *proc.Process) (n int64, err error) {
	for range 10 {
		if n, err = p.Memory(); err == nil || !errors.Is(err, os.ErrNotExist) {
			return n, err
		}
	}
	return n, err
}

// watch looks at the memory once a second.
func watch(p *proc.Process, during time.Duration) (last, peak int64, err error) {
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(time.Second) {
		if last, err = memoryOf(p); err != nil {
			return 0, 0, err
		}
		peak = max(peak, last)
	}
	return last, peak, nil
}
