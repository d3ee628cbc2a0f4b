// A Spawner, and the choice between the two ways to start a child.

package spawn

import (
	"sync/atomic"
)

// A Spawner starts children, one at a time. Several Spawners start them at the
// same time, so a worker that may wait has its own. There is a bounded number
// of them; see NewSpawner.
type Spawner struct {
	twin   bool
	native spawner
}

// forceTwin is what Use was told.
var forceTwin atomic.Bool

// Use chooses the twin even where the spawn program would work (twin), or leaves
// the choice to what the kernel offers, which is the default. It counts for
// Programs compiled and Spawners made afterwards, which must not be mixed with
// earlier ones. It exists for tests, and for the operator of a kernel on which
// the spawn program turns out to be a mistake.
func Use(twin bool) { forceTwin.Store(twin) }

// Native reports whether children are started by the spawn program. If not, why
// says what is missing, and syscall.ForkExec is used. If so, why is empty, or
// warns of what makes it slower here.
func Native() (ok bool, why string) {
	if forceTwin.Load() {
		return false, "the spawn program is turned off"
	}
	return nativeHere()
}

func whyTwin() string {
	_, why := Native()
	return why
}

// NewSpawner returns a Spawner. On the native path each owns two of the
// descriptors that Init has reserved, and there is an error when all are taken
// or Init was not called. Close gives them back.
func NewSpawner() (*Spawner, error) {
	s := new(Spawner)
	if ok, _ := Native(); !ok {
		s.twin = true
		return s, nil
	}
	if err := s.native.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close returns what NewSpawner took. It must not be called during Start, and
// the Spawner must not be used afterwards.
func (s *Spawner) Close() {
	if !s.twin {
		s.native.close()
	}
}

// Start makes a child with conn as its descriptor 0, and 1 and 2 unless p says
// otherwise, and lets it become p. It returns when the child executes the program or has failed, normally
// within a tenth of a millisecond; other goroutines are not held up meanwhile.
//
// conn stays the caller's, who closes it in every case. The child uses the same
// open file, so if it is to have a blocking one the caller must not have set
// O_NONBLOCK on it. It may be any socket; a Program with Go is for connections.
//
// extraEnv is what the environment has besides Attr.Env: any number of
// "NAME=value\x00". A name that is in both has the value from extraEnv. It is
// not kept.
//
// A failure is an *Error. Then pid is 0 if no child came to be; otherwise that
// child has ended, or is about to, with status 127 or by a signal, and has to be
// reaped like any other. The twin reaps a child that fails itself.
//
// Start must not be called by two goroutines at the same time. It does not
// allocate once the buffers of the Spawner have grown to what its programs need
// (the twin does, and a kernel before 6.14 for Programs with Go and Chroot).
func (s *Spawner) Start(p *Program, conn int, extraEnv []byte) (pid int, err error) {
	if s.twin {
		return startTwin(p, conn, extraEnv)
	}
	return s.native.start(p, conn, extraEnv)
}

// PID returns the child that is now between clone and exec, and 0 when there is
// none. Any goroutine may call it.
//
// In that window the child already is its user's, who can stop it, and then
// Start does not return; so a caller who wants other work done looks here from
// another thread, and kills. Who reaps has to make sure that the number is not
// another process's by then: a child is not reaped, hence its number not given
// away, while the lock of the reaper is held.
//
// The twin does not know its child: it is always 0 there, and nothing can be
// done about a stopped one but SIGCONT or SIGKILL by the operator.
func (s *Spawner) PID() int {
	return s.native.child()
}

// Release gives the descriptors that s owns back for another Spawner, while a
// Start of s stands still because its child is held. It reports false when the
// child still needs them, or the twin is used. Any goroutine may call it; no other
// Start of s may follow, only Close.
func (s *Spawner) Release() bool { return !s.twin && s.native.release() }
