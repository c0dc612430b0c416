// Package peers starts the proxies that are measured side by side, each with its own
// configuration from conf/, tuned for this work so that the comparison is fair to it:
// connections to the upstream are kept, answers are not buffered, nothing is logged that
// token-proxy does not have to log, and there are no limits in the way.
//
// token-proxy itself runs with all features on, against a real Redis, Postgres and
// billing-worker (package platform).
package peers
