package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control/web"
)

// webSettings are the knobs of web.
type webSettings struct {
	listen          string
	listenOperators string
	listenProbes    string
	publicURL       string
	apiURL          string
	operatorsAPIURL string
	onboardingURL   string
	drainWithin     time.Duration

	api, operatorsAPI, onboarding *url.URL // as validate has read them; nil for ""
}

func webCommand(getenv func(string) string) *cobra.Command {
	var s webSettings
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Serve the pages: landing page, login, dashboard, operations console",
		Long: `web serves the customers' pages, and passes on to the api what they ask for under /v1. With
--operators-api-url it serves the operations console too, on an address of its own, which
must not be public.

It keeps nothing: any number may run. SIGTERM stops taking requests, ends event streams,
finishes what is in hand and exits with 0.`,
		Example: `  PUBLIC_URL=https://app.example.com API_URL=http://127.0.0.1:8000 control web`,
	}
	f := cmd.Flags()
	f.StringVar(&s.listen, "listen", ":3000", "address for customers")
	f.StringVar(&s.listenOperators, "listen-operators", "127.0.0.1:3001", "address of the operations console, which must not be reachable from outside")
	f.StringVar(&s.listenProbes, "listen-probes", ":8085", "address of /healthz, /readyz and /metrics")
	f.StringVar(&s.publicURL, "public-url", "", "where customers reach the pages, such as https://app.example.com")
	f.StringVar(&s.apiURL, "api-url", "", "the api's listener for customers, such as http://api:8000")
	f.StringVar(&s.operatorsAPIURL, "operators-api-url", "", "the api's listener for operators, such as http://127.0.0.1:8001; without it there is no console")
	f.StringVar(&s.onboardingURL, "onboarding-url", "", "the onboarding agent's listener, such as http://onboarding-agent:9000; without it there is no conversation, and customers sign up by a form")
	f.DurationVar(&s.drainWithin, "drain-within", 20*time.Second, "how long requests in hand may take after SIGTERM")
	return command(cmd, getenv, s.validate, func(cmd *cobra.Command, log *slog.Logger) error {
		return runWeb(cmd.Context(), s, log)
	})
}

func (s *webSettings) validate() error {
	errs := []error{positive("drain-within", s.drainWithin)}
	errs = append(errs,
		checkListen("listen", s.listen, ":3000"), checkListen("listen-operators", s.listenOperators, "127.0.0.1:3001"), checkListen("listen-probes", s.listenProbes, ":8085"),
		checkPublicURL(s.publicURL, "the pages"))
	if s.listen == s.listenOperators {
		errs = append(errs, errors.New("--listen-operators is the address for customers: the console needs one of its own, which is not public"))
	}
	if s.apiURL == "" {
		errs = append(errs, errors.New("--api-url (API_URL) is required: the api's listener for customers, such as http://api:8000"))
	}
	for _, u := range []struct {
		flag, text string
		to         **url.URL
	}{{"api-url", s.apiURL, &s.api}, {"operators-api-url", s.operatorsAPIURL, &s.operatorsAPI}, {"onboarding-url", s.onboardingURL, &s.onboarding}} {
		if *u.to = nil; u.text == "" {
			continue
		}
		if err := checkOrigins(u.flag, u.text); err != nil { // a path would become part of every request's
			errs = append(errs, err)
			continue
		}
		parsed, err := url.Parse(u.text)
		errs = append(errs, err)
		*u.to = parsed
	}
	return errors.Join(errs...)
}

func runWeb(ctx context.Context, s webSettings, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &readiness{}
	probes, err := serveAdmin(s.listenProbes, ready, registry, log)
	if err != nil {
		return err
	}
	defer probes.Close()

	sites := []webSite{{name: web.CustomerSite, address: s.listen, api: s.api, onboarding: s.onboarding}}
	if s.operatorsAPI != nil {
		sites = append(sites, webSite{name: web.Console, address: s.listenOperators, api: s.operatorsAPI})
	}
	var missing error
	for i := range sites {
		one := &sites[i]
		pages, err := web.Built(one.name)
		if errors.Is(err, web.ErrNotBuilt) {
			missing = err
			log.Error("there are no pages to serve", "site", one.name, "error", err)
		} else if err != nil {
			return err
		}
		if one.site, err = web.New(web.Options{
			Name: one.name, Pages: pages, API: one.api, Onboarding: one.onboarding,
			HTTPS: one.name == web.CustomerSite && isHTTPS(s.publicURL), Logger: log, Registerer: registry,
		}); err != nil {
			return err
		}
		if one.listener, err = net.Listen("tcp", one.address); err != nil {
			return fmt.Errorf("listen for %s: %w", one.name, err)
		}
		defer one.listener.Close()
	}
	ready.set(func(context.Context) error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return missing // nobody is to be sent to pages that are not there
	}, func() string { return "" })

	group, ctx := errgroup.WithContext(ctx)
	for _, one := range sites {
		one.serve(ctx, group, s.drainWithin, log)
	}
	return group.Wait()
}

func isHTTPS(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == "https"
}

// webSite is one site with where it is served.
type webSite struct {
	name, address   string
	api, onboarding *url.URL
	site            *web.Site
	listener        net.Listener
}

// serve serves a site until ctx ends, and then finishes what is in hand.
func (w *webSite) serve(ctx context.Context, group *errgroup.Group, drainWithin time.Duration, log *slog.Logger) {
	server := &http.Server{
		Handler: w.site, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	group.Go(func() error { return serveUntilEnd(ctx, server, w.listener, w.name, w.site.Drain, drainWithin, log) })
}
