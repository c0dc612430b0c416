// Package store keeps the control plane's state in Postgres. All SQL of the project
// lives here, and pgx is imported nowhere else; River's tables, which package jobs
// keeps, are the one exception.
//
// Postgres keeps customers apart by itself: what runs for one customer runs within
// Store.ForCustomer, under row-level security. All other methods run as the owner of the
// tables, which sees all customers.
//
// A Store is safe for concurrent use. Its errors wrap control.ErrNotFound,
// control.ErrExists, control.ErrInvalid, control.ErrConflict, control.ErrReused or
// control.ErrSchema where that is what happened; any other error means that Postgres could not be asked, and that
// nothing was changed or that a repetition will find out.
//
// Lock order, kept by every transaction: customers (FOR NO KEY UPDATE, so that
// events of the customer are still inserted meanwhile), usage_events in order of
// (replica, seq), usage_periods in order of (customer, period), dead_letters,
// replicas in order of their ids, the rest. A Leader works on a connection of its own,
// outside of the pool.
package store
