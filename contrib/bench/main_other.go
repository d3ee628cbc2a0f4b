//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: needs Linux: network namespaces, control groups and Debian's peers")
	os.Exit(1)
}
