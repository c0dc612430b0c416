// Package report turns results into BENCHMARKS.md and plots.
package report
