// Package stripesim is a small Stripe that remembers: customers, prices, checkout
// sessions, subscriptions that renew, fail, change and end, invoices, meters and signed
// events, behind the HTTP API of version 2023-10-16.
//
// It knows as much of Stripe as billing asks for, and refuses whatever else it is sent. Its
// clock moves only when a test moves it. It is written from Stripe's documentation and
// shares no code with what it tests, Stripe's own library included.
package stripesim
