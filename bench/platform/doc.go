// Package platform runs what token-proxy needs around it, for a measurement: Redis,
// Postgres, the billing-worker, and customers with tokens. It uses the programs as they
// are built and shipped, from outside, so that nothing of what they do is left out.
//
// Customers are written to Postgres in bulk, as openclawctl would write them one by one, and
// published by the billing-worker, which finds a new Redis. Their limit is far away: each request is
// checked against it, reserved, metered and settled, and none is refused for it.
package platform
