// Package lab sets up a measurement (upstreams, the platform, the proxies) and measures one
// proxy once: what it answered, and what that cost its own processes.
package lab
