// Package clients holds tests of real clients against a running token-proxy: the
// official OpenAI and Anthropic SDKs for Go and Node, and OpenClaw itself.
//
// It is a module of its own, so that the SDKs are no dependencies of the product.
//
// [Every client] runs the same checks and reports what a caller of it sees; one table
// says what that must be, and the simulator's ledger, the proxy's log and the rows in
// Postgres must agree.
package clients
