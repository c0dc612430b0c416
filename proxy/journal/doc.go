// Package journal keeps the usage of requests in flight and the events of ended ones in a file that survives the death of the process.
package journal
