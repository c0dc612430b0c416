package main

import "io"

// Run is the program without its process: to start one, built with the race detector, takes a second.
var Run = run

// Printable writes what boxes wrote so that no terminal obeys it, and then ends it.
func Printable(w io.Writer) (out io.Writer, end func() error) {
	p := &printableText{w: w}
	return p, p.end
}
