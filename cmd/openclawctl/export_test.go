package main

// Run is the program without its process: to start one, built with the race detector, takes a second.
var Run = run
