// Package control holds the domain types of the control plane: who the customers
// are, what they bought, which boxes and proxy tokens they have, and what they used.
//
// It imports the standard library and internal/contract only, does no I/O and keeps
// no state. Adapters live below it and are named after what they adapt: store
// (Postgres), feed (Redis), billing (the usage ledger), customers (what operators
// and the api do to a customer).
package control
