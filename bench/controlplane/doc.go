// Package controlplane measures the api of the control plane at size: it fills Postgres
// with customers, periods and usage events as years of service would leave them, and then
// asks a running api, over HTTP, what customers and operators ask.
//
// Some customers use much more than others, and events come in bursts, as those of an agent
// do. Sums are computed from the events, so that the ledger agrees with itself.
package controlplane
