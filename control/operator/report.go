package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// step notes that a step is begun, if it does not go on already.
func (p *pass) step(name string) { p.m.steps.begin(name, p.d.Generation, time.Now()) }

// finish notes how a step that was begun went.
func (p *pass) finish(name string, err error) {
	took, ended := p.m.steps.end(name, time.Now(), err)
	if ended {
		p.o.metrics.steps.WithLabelValues(name).Observe(took.Seconds())
	}
}

// do does a step.
func (p *pass) do(name string, work func() error) error {
	p.step(name)
	err := work()
	p.finish(name, err)
	return err
}

func (p *pass) reportOf(state control.BoxState, about said) control.BoxReport {
	return control.BoxReport{BoxID: p.d.ID, Generation: p.d.Generation, State: state, Message: about.text, Detail: about.detail, Steps: p.m.steps.unreported()}
}

// report says what state a box is in.
func (p *pass) report(ctx context.Context, state control.BoxState, about said) error {
	return p.send(ctx, p.reportOf(state, about))
}

// progress reports steps and what is told of the box, if they were not reported, without another
// state. A steady state has neither.
func (p *pass) progress(ctx context.Context, about said) error {
	if len(p.m.steps.dirty) == 0 && (about == said{p.d.Message, p.d.Detail} || p.d.Generation != p.d.Observed) {
		return nil
	}
	return p.report(ctx, p.d.State, about)
}

func (p *pass) send(ctx context.Context, r control.BoxReport) error {
	if err := p.o.opts.Books.Report(ctx, r); err != nil {
		return fmt.Errorf("report on box %s: %w", p.d.ID, err)
	}
	p.m.steps.reported()
	p.d.State, p.d.Message, p.d.Detail, p.d.Observed = r.State, r.Message, r.Detail, r.Generation
	p.m.known(p.d.State, p.d.Namespace)
	return nil
}
