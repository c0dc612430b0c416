// Package customers is what operators, and customers by the api, do to a customer: create,
// mint, rotate and revoke tokens, change the limit, allow overage, renew the period, delete;
// what a customer becomes by what Stripe says of its subscription; and the tier table that
// all of that goes by.
//
// Each change is one transaction in Postgres that also writes the audit log and the
// outbox, and is published to the proxies right after. Postgres is the truth: once a
// method has committed, the change holds, and if it cannot be published just then,
// because Redis is away or the process dies, PublishPending does it later. A method
// that returns ErrUnpublished has committed.
package customers
