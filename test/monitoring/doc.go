// Package monitoring watches a running system with Prometheus and Alertmanager, as k8s/golden configures
// them: everything is asked, each dashboard shows something, and for each alert rule a fault is staged, told
// to Slack and PagerDuty, and told to be over. Which rules are not staged, and why, is in notStaged. That
// each rule fires when it should, and not when it should not, is played by promtool (test/manifests).
//
// It runs what `make up-cluster` runs, on ports of its own, with a Stripe and a mail server that are
// simulated and a second token-proxy beside it. It needs Linux, and is no part of `make test`: `make
// monitoring` runs it.
package monitoring
