package kernel

// Addresses for the kernel: see the package comment.

import (
	"reflect"
	"runtime"
)

// pin is the address of b, which stays where it is until p.Unpin. It is 0 for
// an empty b, which the kernel takes for none.
func pin(p *runtime.Pinner, b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	p.Pin(&b[0])
	return uint64(reflect.ValueOf(&b[0]).Pointer())
}
