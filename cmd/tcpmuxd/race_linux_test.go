//go:build race

package main_test

// raced says that the tests, and so the daemon they look at, run under the
// race detector.
const raced = true
