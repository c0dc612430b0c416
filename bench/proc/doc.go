// Package proc runs the programs of a measurement and asks the operating system what
// they cost: processor time to the nanosecond, and memory.
//
// What it starts ends with this process, however that ends. A process counts together with
// its descendants, so that a proxy with workers is charged for all of them.
package proc
