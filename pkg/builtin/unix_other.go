//go:build !linux

package builtin

import (
	"errors"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// AnswerUnix is for Linux.
func (d *Datagrams) AnswerUnix(int, service.Builtin, bool, func() time.Time) error {
	return errors.ErrUnsupported
}
