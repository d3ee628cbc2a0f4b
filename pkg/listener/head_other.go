//go:build !linux

package listener

import (
	"errors"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// Head is not known here.
func (l *Listener) Head() uint64 { return 0 }

// Restore is for Linux.
func (l *Listener) Restore(service.Socket) error { return errors.ErrUnsupported }
