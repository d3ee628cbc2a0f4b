// Systems without abstract unix sockets: ports are locked within the process
// only, and two test processes can, rarely, choose the same one.

//go:build !linux

package testkit

import "sync"

var lockedPorts sync.Map

func lockPort(port int) (unlock func(), ok bool) {
	if _, taken := lockedPorts.LoadOrStore(port, true); taken {
		return nil, false
	}
	return func() { lockedPorts.Delete(port) }, true
}
