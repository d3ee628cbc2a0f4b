// The environment of a child: what the row says, with what the connection says
// on top.

package spawn

import "bytes"

// cutEnv returns the first string of a block of NUL-terminated ones, without
// its NUL, and the rest. The last one need not be terminated.
func cutEnv(block []byte) (entry, rest []byte) {
	entry, rest, _ = bytes.Cut(block, []byte{0})
	return entry, rest
}

// replaced reports whether block sets the variable that the entry "NAME=value"
// sets. Programs do not agree on which of two values counts, so there must only
// be one.
func replaced(entry string, block []byte) bool {
	for len(block) > 0 {
		var e []byte
		e, block = cutEnv(block)
		n := bytes.IndexByte(e, '=') + 1
		if n > 0 && len(entry) >= n && entry[:n] == string(e[:n]) {
			return true
		}
	}
	return false
}

// mergeEnv is the whole environment as strings, extra ones last. The native path
// does the same with pointers; see (*spawner).environ.
func mergeEnv(env []string, extra []byte) []string {
	merged := make([]string, 0, len(env)+8)
	for _, e := range env {
		if !replaced(e, extra) {
			merged = append(merged, e)
		}
	}
	for len(extra) > 0 {
		var e []byte
		if e, extra = cutEnv(extra); len(e) > 0 {
			merged = append(merged, string(e))
		}
	}
	return merged
}
