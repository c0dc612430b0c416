// Package operator makes boxes what Postgres says that they shall be: one namespace each in
// Kubernetes, with an OpenClaw gateway in it. It is the only package that speaks to
// Kubernetes.
//
// It is level-triggered: whatever wakes it (a job that was inserted together with a change, an
// object that changed in the cluster, the sweep), it reads what the box shall be and what there is,
// and applies the difference. So it does not matter how often it is woken, what was half done
// when it died, or who changed what by hand.
package operator
