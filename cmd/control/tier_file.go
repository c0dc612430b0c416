package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// tiersEvery is how often the file is looked at, and whether another process has put a tier
// table into effect.
const tiersEvery = 2 * time.Second

// tierFile follows the file of the tier table. It is used by one goroutine.
type tierFile struct {
	path    string // "" for none
	service *customers.Service
	seen    []byte // what was put into effect, or refused
	refused prometheus.Gauge

	pause time.Duration // after a roll-out that failed; 0 after one that did not
	again time.Time     // before then none is tried
}

// maxRollOutPause is the longest pause between two attempts to give customers their new grants.
const maxRollOutPause = 5 * time.Minute

func newTierFile(path string, service *customers.Service, registry prometheus.Registerer) (*tierFile, error) {
	f := &tierFile{path: path, service: service, refused: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "control_tier_file_refused",
		Help: "1 if the file of the tier table is not in effect because it is not valid or cannot be read; the log says why.",
	})}
	if err := registry.Register(f.refused); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return f, nil
}

// follow puts the file into effect if it has changed, and returns how many customers have got
// new grants. A file that is not valid is told of once.
func (f *tierFile) follow(ctx context.Context) (int, error) {
	before := f.service.Tiers.Version()
	err := errors.Join(f.set(ctx), f.service.LoadTiers(ctx))
	if f.service.Tiers.Version() == before && time.Now().Before(f.again) {
		return 0, err
	}
	n, rollErr := f.service.RollOutTiers(ctx)
	if rollErr == nil {
		f.pause, f.again = 0, time.Time{}
		return n, err
	}
	// A customer whose grants cannot be computed stays so until someone looks.
	f.pause = min(max(2*f.pause, tiersEvery), maxRollOutPause)
	f.again = time.Now().Add(f.pause)
	return n, errors.Join(err, rollErr)
}

func (f *tierFile) set(ctx context.Context) error {
	if f.path == "" {
		return nil
	}
	content, err := os.ReadFile(f.path)
	if err != nil {
		f.refused.Set(1)
		f.seen = nil // what it was before is in effect again once it can be read
		return err
	}
	if f.seen != nil && bytes.Equal(content, f.seen) {
		return nil
	}
	_, err = f.service.SetTiers(ctx, "system:tiers-file", content)
	switch {
	case err == nil:
		f.refused.Set(0)
	case errors.Is(err, control.ErrInvalid):
		f.refused.Set(1)
		err = fmt.Errorf("%s is refused, and the old table stays: %w", f.path, err)
	default:
		return err // it is tried again
	}
	f.seen = content
	return err
}
