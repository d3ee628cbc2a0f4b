// Package origin remembers the descriptor limit that the process was started
// with.
//
// Go's syscall package raises the soft RLIMIT_NOFILE to the hard one when it is
// initialised. Children must get the original back: a program that uses
// select(2), or that closes every descriptor up to its limit, relies on it. So
// somebody has to look before. Packages that are ready are initialised in the
// order of their import paths (the Go specification, "Program initialization",
// and the Go 1.21 release notes); this one imports nothing, hence is ready at
// once, and its path sorts before "syscall". That is also why it makes its
// system call itself.
//
// It does nothing else.
package origin

// Nofile returns the soft and the hard RLIMIT_NOFILE as they were before Go
// changed them. ok is false where they were not read: on other systems than
// linux/amd64 and linux/arm64.
func Nofile() (soft, hard uint64, ok bool) {
	return limit.soft, limit.hard, known
}

// limit has the layout of struct rlimit64, getrlimit(2).
var limit struct{ soft, hard uint64 }

var known bool
