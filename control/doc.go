// Package control holds the domain types of the control plane: who the customers
// are, what they bought, which boxes and proxy tokens they have, and what they used.
//
// It imports the standard library and internal/contract only, does no I/O and keeps
// no state. Adapters live below it and are named after what they adapt: store
// (Postgres), jobs (River), feed (Redis), limits (the records that limits are leased from),
// billing (the usage ledger), billing/stripe (Stripe), mail (SMTP), tiers (the tier table),
// customers (what is done to a customer), onboarding (the conversation by which it becomes one), api (HTTP) and
// client (its other side).
package control
