// Package record is what measurements leave behind: one JSON file per run, with the machine,
// the settings and every single sample, and the statistics that reports make of samples.
package record
