// Package monitoring watches a running system with Prometheus and Alertmanager, as k8s/golden configures
// them: everything is asked, each dashboard shows something, and faults that are staged are told to Slack and
// PagerDuty, and told to be over. That each rule fires when it should is played by promtool (test/manifests).
//
// It runs what `make up-cluster` runs, on ports of its own, and is no part of `make test`: `make monitoring`
// runs it.
package monitoring
