//go:build amd64 || arm64

// The look itself.

package origin

func init() {
	// A variable, not a local: assembly is given the address.
	known = prlimitNofile(&limit) == 0
}

// prlimitNofile is prlimit64(0, RLIMIT_NOFILE, NULL, old).
//
//go:noescape
func prlimitNofile(old *struct{ soft, hard uint64 }) (errno uintptr)
