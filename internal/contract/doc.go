// Package contract holds what two processes of openclaw-cloud must agree on:
// the proxy token, the grant, the Redis key names, the configuration feed and
// the usage event. It imports nothing of ours, does no I/O and keeps no state.
//
// A change here is a change of a wire or storage format. The golden files in
// testdata show each format; readers accept version N and N-1.
package contract
