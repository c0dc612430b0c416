// Package callers tells those apart who call from outside, and bounds how much of each is let through.
//
// Whoever is behind a proxy of ours is known by what that proxy says; nobody else's word on it counts. What is
// kept of callers is bounded, however many there are.
package callers
