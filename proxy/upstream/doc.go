// Package upstream holds the upstreams that token-proxy forwards to: which of them and
// which of their keys serves a request, whether they are healthy, and the HTTP/1.1
// connections to them.
//
// # Vocabulary
//
// An upstream (one [Config]) is a base URL that speaks one wire format (its face) and
// is reached with one or more keys. A [Pool] picks a [Target], which is one key of one
// upstream, for a (face, model) pair. [Target.Do] sends a request there and returns
// once the head of the answer is known; the [Response] then yields the decoded body.
//
// # Promises
//
//   - Only the fields of [Request] reach an upstream, each refused when it holds a
//     control character; Host, Accept-Encoding: identity, Content-Length and the key
//     are added here.
//   - A request that an upstream may have read is never sent a second time. A retry
//     happens once, on a fresh connection, and only when no byte was written, or when a
//     reused connection died before its first response byte and the peer demonstrably
//     closed it before it received any byte of the request.
//   - A body ends with io.EOF only where its own framing ends. Everything else is
//     io.ErrUnexpectedEOF, a timeout or a cancellation.
//   - Limits exist for connecting, the TLS handshake, the response head, silence inside
//     a body and the whole exchange; each fires between its value and 9/8 of it.
//   - [Canceler.Cancel] ends whatever a request is blocked in at once, and never
//     touches a connection that went back to the pool.
//   - Names are resolved when dialling, and every address is checked against private,
//     link-local and metadata ranges before it is connected to, unless the upstream is
//     configured with allow_private. Redirects are never followed.
//
// # Concurrency
//
// A Pool is safe for concurrent use. A Target and its Response belong to one goroutine
// at a time; a Canceler may be used from any. No goroutine runs per request or per
// connection: an idle connection that died is noticed when it is about to be reused.
//
// On Linux an event loop can read a Response without waiting ([Response.Poll]), also through
// TLS. It then watches the socket and keeps the time of [Response.Limits] itself.
//
// [ParseHead] and [Chunked] are pure, so that an event loop can drive them too.
package upstream
