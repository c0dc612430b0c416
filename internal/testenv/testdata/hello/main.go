// Hello is a small program for the test of BuildBinary.
package main

import "os"

func main() {
	os.Stdout.WriteString("hello\n")
}
