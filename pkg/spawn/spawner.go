// A Spawner, and the choice between the two ways to start a child.

package spawn

import (
	"sync/atomic"
	"time"
)

// A Spawner starts children, one at a time; who starts several at the same time
// has as many Spawners.
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

// NewSpawner returns a Spawner, to be closed when it is not needed any more. Init
// must have been called. While the descriptor table is large, each owns one of the
// pairs of descriptors that Init has reserved room for; where there are not enough,
// starts cost more.
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

// Close returns what NewSpawner took. It must not be called between Begin and
// Finish, and the Spawner must not be used afterwards.
func (s *Spawner) Close() {
	if !s.twin {
		s.native.close()
	}
}

// Begin makes a child with conn as its descriptor 0, and 1 and 2 unless p says
// otherwise, and lets it become p. It does not wait for that, unless p.Waits says
// so: Done tells when the child has become the program or has failed, normally
// within a tenth of a millisecond, and then Finish has to be called before the
// next Begin. A Spawner with a child under way must be kept referenced.
//
// conn stays the caller's, who may close it when Begin has returned. The child uses the same
// open file, so if it is to have a blocking one the caller must not have set
// O_NONBLOCK on it. It may be any socket; a Program with Go is for connections.
//
// extraEnv is what the environment has besides Attr.Env: any number of
// "NAME=value\x00". A name that is in both has the value from extraEnv. It is
// not kept.
//
// A failure is an *Error, after which there is nothing to finish: no child came
// to be, or it was the twin's, which reaps a child that fails itself.
//
// Begin, Await, Finish and Release must not be called by two goroutines at the same time.
// They do not allocate once the buffers of the Spawner have grown to what its
// programs need (the twin does, and a kernel before 6.14 for Programs with Go and Chroot).
func (s *Spawner) Begin(p *Program, conn int, extraEnv []byte) (pid int, err error) {
	if s.twin {
		return startTwin(p, conn, extraEnv)
	}
	return s.native.begin(p, conn, extraEnv)
}

// Done reports whether the child of the last Begin has become its program, or
// has ended, or is about to. Any goroutine may call it.
func (s *Spawner) Done() bool { return s.twin || s.native.done() }

// Failed reports whether the child of the last Begin has failed already, which its
// peer may know by now even if it is not Done; it remains so after Finish. Any
// goroutine may call it until the next Begin or Close. It is false before the first
// Begin, for a child that was killed, and for the twin's.
func (s *Spawner) Failed() bool { return !s.twin && s.native.failed() }

// Await waits until Done, but not longer than most, and reports Done.
func (s *Spawner) Await(most time.Duration) bool { return s.twin || s.native.await(most) }

// Finish says how the child of the last Begin has fared, after Done. A failure is
// an *Error; the child then has ended, or is about to, with status 127 or by a
// signal, and has to be reaped like any other.
func (s *Spawner) Finish() error {
	if s.twin {
		return nil
	}
	return s.native.finish()
}

// Start is Begin, Await for as long as it takes, and Finish. The pid is 0 if no
// child came to be, or it was the twin's and has failed.
func (s *Spawner) Start(p *Program, conn int, extraEnv []byte) (pid int, err error) {
	if pid, err = s.Begin(p, conn, extraEnv); err != nil {
		return pid, err
	}
	for !s.Await(time.Hour) {
	}
	return pid, s.Finish()
}

// PID returns the child of the last Begin until Finish, and 0 when there is
// none. Any goroutine may call it.
//
// Between clone and exec the child already is its user's, who can stop it; so
// whoever minds looks here, and kills. Who reaps has to make sure that the number is not
// another process's by then: a child is not reaped, hence its number not given
// away, while the lock of the reaper is held.
//
// The twin does not know its child: it is always 0 there, and nothing can be
// done about a stopped one but SIGCONT or SIGKILL by the operator.
func (s *Spawner) PID() int {
	return s.native.child()
}

// Release gives the descriptors that s owns, if it owns any, back for other Spawners while the
// child of s is held before its program. It reports false when the child still
// needs them, or the twin is used.
func (s *Spawner) Release() bool { return !s.twin && s.native.release() }
