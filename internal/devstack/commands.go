package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Up starts what does not run yet, waits until all of it is ready, makes an operator and a first
// customer with a token, and prints what to do next. When something fails, it
// ends what it started itself and returns an error that says why.
func Up(ctx context.Context, cfg Config) error {
	s, err := open(cfg, true)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.checkSettings(); err != nil {
		return err
	}
	for _, name := range []string{"token-proxy", "control", "openclawctl", "kimisim", "stripesim", "telegramsim"} {
		if _, err := os.Stat(s.binary(name)); err != nil {
			return fmt.Errorf("%s is not built; run `make build`", name)
		}
	}
	if err := s.up(ctx); err != nil {
		for _, svc := range slices.Backward(s.started) {
			err = errors.Join(err, s.stop(svc))
		}
		return err
	}
	return nil
}

func (s *stack) up(ctx context.Context) error {
	if s.cfg.KimiAPIKey == "" {
		s.printf("Starting on loopback, with the Kimi simulator (KIMI_API_KEY=… uses the real Kimi):\n")
	} else {
		s.printf("Starting on loopback, with the real Kimi at %s:\n", s.cfg.KimiBaseURL)
	}
	s.sayWhatIsSimulated()
	if err := s.checkKeys(); err != nil {
		return err
	}
	for _, svc := range s.services() {
		// Its start needs the schema, which needs the database.
		if svc.name == "billing-worker" {
			if err := s.migrate(ctx); err != nil {
				return err
			}
		}
		if err := s.start(ctx, svc); err != nil {
			return err
		}
	}
	if len(s.started) == 0 {
		s.printf("It was running already. After a change of the code: make down up\n")
	}
	email, err := s.operator(ctx)
	if err != nil {
		return err
	}
	customer, err := s.seed(ctx, s.operatorEnv(email))
	if err != nil {
		return err
	}
	if s.cfg.Kubebox != "" {
		if err := s.startKubernetes(ctx); err != nil {
			return err
		}
	}
	if err := s.platform(ctx, s.operatorEnv(email)); err != nil {
		return err
	}
	if err := s.start(ctx, s.onboardingAgent()); err != nil {
		return err
	}
	if err := s.instructions(customer, email); err != nil || s.cfg.Kubebox == "" {
		return err
	}
	return s.showKubernetes(ctx, customer, email)
}

func (s *stack) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	began := time.Now()
	cmd := exec.CommandContext(ctx, s.binary("control"), "migrate")
	cmd.Env = s.controlEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("control migrate: %w\n%s", err, out)
	}
	s.printf("  %-24s %-22s ready (%.1f s)\n", "schema", "", time.Since(began).Seconds())
	return nil
}

// Down ends the processes that Up started, in reverse order, and checks that
// nothing is left of them. Data stays.
func Down(cfg Config) error {
	s, err := open(cfg, false)
	if errors.Is(err, ErrNotSetUp) {
		fmt.Fprintln(cfg.Out, "Nothing is running.")
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	return s.down()
}

func (s *stack) down() error {
	s.loadPorts()
	names, err := s.runningNames()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		s.printf("Nothing is running.\n")
	}
	var errs []error
	var pids []int
	for _, svc := range slices.Backward(s.everyService()) {
		if p, running, err := readPID(s.pidFile(svc.name)); err == nil && running {
			pids = append(pids, p.pid)
		}
		errs = append(errs, s.stop(svc))
	}
	left, err := s.runningNames()
	errs = append(errs, err)
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("still running: %s", strings.Join(left, ", ")))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	collected(2*time.Second, pids...)
	if len(names) > 0 {
		s.printf("All stopped. Data and logs stay in %s (make clean removes them).\n", s.cfg.RunDir)
	}
	return nil
}

// Clean is Down, and then removes the run directory with all data.
func Clean(cfg Config) error {
	s, err := open(cfg, false)
	if errors.Is(err, ErrNotSetUp) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.down(); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(s.outsideDir()), os.RemoveAll(cfg.RunDir)); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	return nil
}

// ErrDown is returned by Status when not everything that was started runs.
var ErrDown = errors.New("not everything is running")

// Status prints one line per process: its id, address and whether it is ready.
func Status(ctx context.Context, cfg Config) error {
	s, err := open(cfg, false)
	if errors.Is(err, ErrNotSetUp) {
		fmt.Fprintln(cfg.Out, "Nothing is running.")
		return ErrDown
	}
	if err != nil {
		return err
	}
	defer s.close()
	s.loadPorts()
	all := true
	for _, svc := range s.startedServices() {
		p, running, err := readPID(s.pidFile(svc.name))
		if err != nil {
			return err
		}
		word := "stopped"
		if running {
			word = "ready"
			if err := svc.ready(ctx); err != nil {
				word = "not ready: " + err.Error()
			}
		}
		all = all && word == "ready"
		s.printf("  %-24s %-22s pid %-8d %s\n", svc.name, svc.address(), p.pid, word)
	}
	if !all {
		return ErrDown
	}
	return nil
}
