// Package faultpoint marks the places where a kill would hurt most: right before and right
// after each step that decides whether a token is counted. In a program built with the
// tag "faultpoints" such a place can be armed from outside, and the process then kills
// itself there; test/drill does that. Without the tag everything here is empty and
// inlined, so a mark costs nothing and leaves nothing in the binary.
//
//	faultpoint.At("meter.add.before")
//	err := rdb.XAdd(…)
//	faultpoint.At("meter.add.after")
//
// Names are literals, "<part>.<step>.<where>" with where one of before, during and after:
// the drill finds them in the source. A mark may stand where locks are held; the process
// that reaches an armed one does nothing any more.
package faultpoint
