// Package client speaks to the operators' side of the api: it signs in, keeps the session
// alive, repeats what can be repeated, and turns what the api answers into errors that say
// what to do.
//
// A POST goes with an idempotency key, so that it has its effect once however often it is
// sent. What is repeated here is bounded by a few seconds; what remains an error after that
// says whether it may have been done.
package client
