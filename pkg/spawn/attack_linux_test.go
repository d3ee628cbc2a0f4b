//go:build amd64 || arm64

package spawn

// Many children at once, in a process that is busy with everything the Go
// runtime does: collections, stacks that grow and shrink, preemption, signals.

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// A reaper waits for any child, as the daemon does, and counts how they end.
type reaper struct {
	mu   sync.Mutex
	ends map[string]int
	quit atomic.Bool
	done chan struct{}
}

func startReaper() *reaper {
	r := &reaper{ends: map[string]int{}, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for {
			var ws syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
			switch {
			case pid > 0:
				r.mu.Lock()
				r.ends[status(ws)]++
				r.mu.Unlock()
			case err == syscall.EINTR:
			case r.quit.Load():
				return
			default:
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	return r
}

// count is how many children have ended so far.
func (r *reaper) count() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.ends {
		n += v
	}
	return n
}

// stop ends the reaper after n children.
func (r *reaper) stop(t *testing.T, n int) map[string]int {
	t.Helper()
	eventually(t, "the end of all children", func() bool { return r.count() >= n })
	r.quit.Store(true)
	<-r.done
	return r.ends
}

// unrest makes the runtime work until the returned function is called.
func unrest(t *testing.T) (stop func()) {
	var quit atomic.Bool
	var wg sync.WaitGroup
	busy := func(f func()) {
		wg.Go(func() {
			for !quit.Load() {
				f()
			}
		})
	}
	busy(runtime.GC)
	for range 2 {
		busy(func() { // stacks
			done := make(chan int)
			go func() { done <- deep(2000) }()
			<-done
		})
		busy(func() { // garbage of all sizes, and pages that move
			for n := 16; n < 1<<16; n *= 2 {
				b := make([]byte, n)
				for i := range b {
					b[i] = 0xa5
				}
			}
			time.Sleep(time.Millisecond)
		})
	}
	busy(func() { // no call in the loop: only a signal preempts it
		for i := range 2_000_000 {
			sink.Store(int64(i))
		}
		time.Sleep(time.Millisecond)
	})
	// Signals to the process, and to each of its threads, those in vfork as well.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1, syscall.SIGWINCH)
	pid := os.Getpid()
	busy(func() {
		for _, sig := range []syscall.Signal{syscall.SIGURG, syscall.SIGUSR1, syscall.SIGWINCH} {
			syscall.Kill(pid, sig)
			entries, _ := os.ReadDir("/proc/self/task")
			for _, e := range entries {
				tid := 0
				for _, c := range e.Name() {
					tid = tid*10 + int(c-'0')
				}
				unix.Tgkill(pid, tid, sig)
			}
		}
		time.Sleep(200 * time.Microsecond)
	})
	return func() {
		quit.Store(true)
		wg.Wait()
		signal.Stop(caught)
	}
}

var sink atomic.Int64

//go:noinline
func deep(n int) int {
	var frame [64]byte
	if n == 0 {
		return 0
	}
	frame[n%64] = byte(n)
	return deep(n-1) + int(frame[n%64])
}

// Thousands of children of several rows, from as many spawners as there are. All
// must reach their program with the right arguments, and none must be lost.
func TestThousands(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			testkit.Check(t)
			w.use(t)
			attrs := []Attr{
				{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true},
				{Path: progExit, Argv: []string{"exit", "x"}, Umask: 0o22, Env: []string{"A=1"}},
				{Path: progExit, Argv: []string{"exit", "x"}, Umask: 0o22, Dir: "/tmp", Cred: &Cred{UID: 3, GID: 4}},
				{Path: progExit + ".none", Argv: []string{"exit"}, Umask: 0o22, Cred: nobody, Go: true},
			}
			var programs []*Program
			for i := range attrs {
				programs = append(programs, compile(t, &attrs[i]))
			}
			workers, each := 8, scaled(500)
			if native, _ := Native(); !native || needsCopy() != "" {
				each = scaled(20) // these ways are slow, with all the memory of the race detector
			}
			reaper := startReaper()
			stop := unrest(t)
			var wg sync.WaitGroup
			var started, failed atomic.Int64
			for w := range workers {
				s := newSpawner(t)
				wg.Go(func() {
					for i := range each {
						// Programs are dropped and made anew, so that memory that is not
						// kept alive would be used again.
						p := programs[(w+i)%len(programs)]
						if i%50 == 0 {
							p = compile(t, &attrs[(w+i)%len(programs)])
						}
						fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
						if err != nil {
							t.Error(err)
							return
						}
						extra := []byte("N=1\x00TCPREMOTEIP=2001:db8::1\x00")
						pid, err := s.Start(p, fds[0], extra[:i%2*len(extra)])
						if pid != 0 {
							started.Add(1)
						}
						wire := ""
						switch a := &p.attr; {
						case a.Path != progExit:
							failed.Add(1)
							if e, ok := err.(*Error); !ok || *e != (Error{Step: "check", Errno: syscall.ENOENT}) {
								t.Errorf("error %v", err)
							}
						case err != nil:
							t.Error(err)
						case a.Go:
							wire = "+Go\r\n"
						}
						unix.Close(fds[0])
						buf := make([]byte, 16)
						got := ""
						for {
							n, err := unix.Read(fds[1], buf)
							if err == unix.EINTR {
								continue
							}
							if n <= 0 {
								break
							}
							got += string(buf[:n])
						}
						if got != wire {
							t.Errorf("the peer got %q, want %q", got, wire)
						}
						unix.Close(fds[1])
					}
				})
			}
			wg.Wait()
			stop()
			ends := reaper.stop(t, int(started.Load()))
			want := map[string]int{"exit 0": workers*each - int(failed.Load())}
			if n := int(started.Load()) - want["exit 0"]; n > 0 {
				want["exit 127"] = n
			}
			if native, _ := Native(); !native {
				// ForkExec reaps a child that fails, or our reaper was faster.
				delete(ends, "exit 253")
			} else if want["exit 127"] != int(failed.Load()) {
				t.Errorf("%d failures, %d children that failed", failed.Load(), want["exit 127"])
			}
			if diff := cmp.Diff(want, ends); diff != "" {
				t.Errorf("ends of children (-want +got):\n%s", diff)
			}
		})
	}
}

// However many descriptors are open, a child sees three of them, and copies no
// more than before.
func TestManyDescriptors(t *testing.T) {
	testkit.Check(t)
	low := slots.low
	var opened []int
	defer func() {
		for _, fd := range opened {
			unix.Close(fd)
		}
	}()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	opened = append(opened, null)
	for _, n := range []int{0, 5000, 15000} {
		for len(opened) < n {
			fd, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatalf("after %d descriptors: %v", len(opened), err)
			}
			if fd < low {
				t.Fatalf("descriptor %d is below %d and was free", fd, low)
			}
			opened = append(opened, fd)
		}
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) {
				w.use(t)
				a := &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
				s := newSpawner(t)
				conn, _ := pair(t)
				want, err := expected(a, conn)
				if err != nil {
					t.Fatal(err)
				}
				pid, err := s.Start(compile(t, a), conn, nil)
				syscall.Close(conn)
				if err != nil {
					t.Fatal(err)
				}
				got, err := look(pid)
				syscall.Kill(pid, syscall.SIGKILL)
				reap(t, pid)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("with %d descriptors the child sees (-want +got):\n%s", n, diff)
				}
				if n >= 5000 && !s.twin && (s.native.from != headUnshare || s.native.ops[headUnshare].a[0] != uintptr(low)) || slots.low != low {
					t.Errorf("low is %d with %d descriptors, %d without", slots.low, n, low)
				}
			})
		}
	}
}

// With many descriptors open, what a child has of them in the window is what it
// needs: the copy of the table is small. FDSize is the size of the table.
func TestTableIsNotCopied(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	opened := []int{null}
	defer func() {
		for _, fd := range opened {
			unix.Close(fd)
		}
	}()
	for len(opened) < 15000 {
		fd, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		opened = append(opened, fd)
	}
	s := newSpawner(t)
	a := held
	a.Path = progExit
	path, done, _ := startHeld(t, s, &a, "setsid")
	if size := statusOf(s.PID(), "FDSize"); size != "64" && size != "256" {
		t.Errorf("the child's table has room for %s descriptors", size)
	}
	release(t, path)
	r := outcome(t, done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	reap(t, r.pid)
}
