package testenv

// NoLeaksWithin is NoLeaks with a settle time of the test's own.
var NoLeaksWithin = noLeaks
