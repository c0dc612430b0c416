// Package api is the REST interface of the control plane: one handler for customers, which
// is public, and one for operators, which is not.
//
// Every route is a row of a table (customerRoutes, operatorRoutes) that says its method and
// path, who may call it, and its part of the OpenAPI document. What is not in the table is
// not there, and a row that names nobody is refused when the API is made. The order in which
// a request is judged is in serve.go: the limit of its address, who it is, whether that one
// may, whether it was meant, the limit of the account; only then is its body read.
//
//   - A browser signs in by cookies that scripts cannot read: an access token (a signed JWT)
//     that is good for an hour, and a refresh token that is good once. Both name a session in
//     Postgres, and no request is served whose session has ended there.
//   - Programs of customers use personal API keys, which can read and change nothing.
//   - Errors are problem+json (RFC 9457) and made in one place, problem.go. They never carry
//     the text of an error that is not meant for the caller.
//   - A customer's data is read through store.ForCustomer, under row-level security, so that a
//     mistake here shows nobody what is another's.
package api
