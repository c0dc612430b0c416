// Package load sends requests to a proxy and measures how it answers.
//
// An open load has arrivals that do not wait for answers, and a latency counts from the
// moment at which a request was meant to be sent: an answer that is late makes all requests
// behind it late too, instead of hiding them (there is no coordinated omission). A closed
// load keeps a number of requests in flight, which finds the greatest throughput.
//
// A request may be answered whole or as a stream of events. Where an event carries the time
// at which the upstream wrote it (field "t", Unix ns, at the end of its data, as kimisim's
// and bench/origin's stamps), the time from there to here is recorded per event; both need
// the same clock, so the same machine.
//
// Few goroutines drive all connections, by epoll, with requests whose bytes are made in
// advance and a reader of answers that looks only at what it needs: the generator shares
// the machine with what it measures.
package load
