//go:build !linux || !(amd64 || arm64)

// Where there is no spawn program there is nothing to compile, and no
// descriptor to own.

package spawn

import (
	"errors"
	"time"
)

type program struct{}

func (*program) compile(*compiler, *Attr) error { return errors.ErrUnsupported }

type compiler struct{}

func (*compiler) look() {}

type spawner struct{}

func (*spawner) open() error   { return errors.ErrUnsupported }
func (*spawner) close()        {}
func (*spawner) child() int    { return 0 }
func (*spawner) release() bool { return false }
func (*spawner) failed() bool  { return false }

func (*spawner) begin(*Program, int, []byte) (int, error) { return 0, errors.ErrUnsupported }
func (*spawner) done() bool                               { return true }
func (*spawner) await(time.Duration) bool                 { return true }
func (*spawner) finish() error                            { return errors.ErrUnsupported }

func (*program) waits() bool { return true }

// Slots is 0: there is no spawn program.
func Slots() int { return 0 }

func nativeHere() (bool, string) {
	return false, "the spawn program is for linux/amd64 and linux/arm64"
}
