// Package openclaw is what the rest of the operator has to know of OpenClaw: the file that a
// customer's gateway is configured by, and what the pod around it must be like.
package openclaw
