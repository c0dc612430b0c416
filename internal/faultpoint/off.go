//go:build !faultpoints

package faultpoint

// At does nothing.
func At(string) {}

// Watch does nothing, and reads nothing.
func Watch(func(string) string) {}
