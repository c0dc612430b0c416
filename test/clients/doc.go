// Package clients holds tests of real clients: against a running token-proxy the
// official OpenAI and Anthropic SDKs for Go and Node, and OpenClaw itself; against a running
// api clients that are generated from its OpenAPI documents, which are linted too.
//
// It is a module of its own, so that the SDKs are no dependencies of the product.
//
// All SDKs do the same checks and report what a caller of them sees. One table says what
// that must be, and the simulator's ledger, the proxy's log and the rows in Postgres must
// agree with it.
//
// Run it with
//
//	go test -count=1 -timeout 20m
//
// in this directory. Without -count=1 the go command takes an earlier result for as good
// as a new one, since it does not see that the tests build and run token-proxy. The first
// run installs the packages that node/ and openclaw/ name, 1 GB, into the user's cache
// directory (openclaw-cloud/); what is not used for two weeks is removed from there.
package clients
