// Package scale measures what changes when there is more of something: open streams, load
// than fits, customers.
package scale
