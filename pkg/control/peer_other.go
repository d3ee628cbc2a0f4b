//go:build !linux

package control

import (
	"errors"
	"net"
)

func peerOf(*net.UnixConn) (uint32, error) { return 0, errors.ErrUnsupported }
