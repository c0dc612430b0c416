// Package stripesim is a small Stripe that remembers: customers, prices, checkout
// sessions, subscriptions that renew, fail, change and end, invoices, meters and signed
// events, behind the HTTP API of version 2023-10-16.
//
// It knows as much of Stripe as billing asks for, and refuses whatever else it is sent. It is
// written from Stripe's documentation and shares no code with what it tests, Stripe's own library
// included.
//
// A test has one of New, whose clock moves only when the test moves it, and delivers its events
// itself. People have one of Open, which cmd/stripesim runs: with pages to pay on, a clock that goes on,
// events that are delivered, and a file by which all of it survives the process.
package stripesim
