// Package origin is a minimal upstream in Kimi's shape, cheap enough that a proxy and not
// the upstream is what a measurement measures: answers and events are made in advance, and
// one thread serves all connections.
//
// It takes the part of kimisim's behaviours that a measurement needs, in the same place and
// form, so that a request means the same to both:
//
//	[[sim:{"output_tokens":100,"tokens_per_second":100,"ttft":"50ms","stamp":true}]]
//
// anywhere in the body, quotes escaped as JSON wants them or not. It checks nothing, counts
// nothing and injects no faults; for that there is kimisim.
//
// The events of a stream are sent each for itself at its own time, as they would come from
// the network, never gathered into larger writes. With a stamp each carries the time at
// which it was written, in Unix nanoseconds.
package origin
