//go:build !linux || !(amd64 || arm64)

// Where there is no spawn program there is nothing to compile, and no
// descriptor to own.

package spawn

import "errors"

type program struct{}

func (*program) compile(*Attr) error { return errors.ErrUnsupported }

type spawner struct{}

func (*spawner) open() error   { return errors.ErrUnsupported }
func (*spawner) close()        {}
func (*spawner) child() int    { return 0 }
func (*spawner) release() bool { return false }

// Slots is how many Spawners there can be at a time on the native path.
func Slots() int { return 0 }

func (*spawner) start(*Program, int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func nativeHere() (bool, string) {
	return false, "the spawn program is for linux/amd64 and linux/arm64"
}
