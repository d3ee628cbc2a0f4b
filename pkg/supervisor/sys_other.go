//go:build !linux

package supervisor

import (
	"errors"
	"io"
	"syscall"
	"time"
)

// The supervisor needs epoll; elsewhere it can be built but not run.

type poller struct{}

type event struct {
	token  uint64
	urgent bool
	ended  bool
	broken bool
}

type eventBuffer struct{}

func (*eventBuffer) pop() (event, bool) { return event{}, false }

func newPoller() (poller, error) { return poller{}, errors.ErrUnsupported }

func (poller) close()                                 {}
func (poller) addListener(int, uint64) error          { return errors.ErrUnsupported }
func (poller) addPeer(int, uint64, bool) error        { return errors.ErrUnsupported }
func (poller) addWake(int, uint64) error              { return errors.ErrUnsupported }
func (poller) addReader(int, uint64) error            { return errors.ErrUnsupported }
func (poller) remove(int)                             {}
func (poller) wait(*eventBuffer, time.Duration) error { return errors.ErrUnsupported }

func newWake() (int, error) { return -1, errors.ErrUnsupported }
func wake(int)              {}
func closeFd(int)           {}
func shrink(int)            {}

func tellDestination(int, bool, bool) error { return errors.ErrUnsupported }

func scarce(syscall.Errno) bool     { return false }
func abortFd(int)                   {}
func again(error) bool              { return false }
func peek(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
func take(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
func send(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
func shutdownWrite(int) error       { return errors.ErrUnsupported }
func shortage(error) bool           { return false }
func ownShortage(error) bool        { return false }
func passing(error) bool            { return false }

func outputPair(time.Duration) (send, receive int, err error) { return -1, -1, errors.ErrUnsupported }

func receiveOutput(int, []byte) (n, pid int, cut bool, err error) {
	return 0, 0, false, errors.ErrUnsupported
}

func awaitChild() bool { return false }
func awaitable() bool  { return false }

func beforeProgram(int) byte { return 0 }
func parentOf(int) int       { return 0 }

func watchAddresses(func()) (io.Closer, error) { return nil, errors.ErrUnsupported }

func connOf(int) int { return -1 }

func openMost() uint64 { return 0 }

func growTable(int, int) {}
