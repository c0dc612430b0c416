// Package web serves the pages of openclaw-cloud: those of customers (landing page, login,
// dashboard), and, on a listener of its own, the operations console.
//
// The pages are built from app/ into dist/, and are part of the program (see Built). They hold no
// data: what they show they ask the api for, under the same origin, so that the api's cookies
// reach it and no other site's script does. A Site passes such requests on (passthrough.go) and
// knows nothing of what is in them: who is signed in, and what they may do, only the api decides.
//
//   - Nothing in a page runs or is styled unless it is a file of ours: the content security policy
//     has no 'unsafe-inline', and no host but our own.
//   - Files with a hash in their name may be kept for a year, pages have to be asked for anew: a
//     release is seen with the next load, and never half of it.
//   - Event streams pass as they come, and end when the process is to end (Drain).
//
// README.md says which pages there are, and which routes of the api they need.
package web
