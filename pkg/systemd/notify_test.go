package systemd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// manager is a NOTIFY_SOCKET.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func hear(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	c := manager(t)
	n := NewNotifier(func(err error) { t.Error(err) })
	n.Ready()
	if got := hear(t, c); got != "READY=1" {
		t.Errorf("%q", got)
	}
	if v, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
		t.Errorf("NOTIFY_SOCKET=%s is left", v)
	}
	// From here on the same socket is used, whatever is at its path.
	if err := os.Remove(c.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	n.Status("serving\n1 row")
	if got := hear(t, c); got != "STATUS=serving 1 row" {
		t.Errorf("%q", got)
	}
	n.Status("serving\n1 row")
	n.Reloading()
	if got := hear(t, c); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}
	n.Ready()
	if got := hear(t, c); got != "READY=1" {
		t.Errorf("%q", got)
	}
	n.Stopping(3 * time.Second)
	n.Close(10 * time.Second)
	if got := hear(t, c); got != "STOPPING=1\nEXTEND_TIMEOUT_USEC=3000000" {
		t.Errorf("%q", got)
	}
}

// A manager that has a new socket in the place of the old one is found.
func TestManagerIsStartedAgain(t *testing.T) {
	old := manager(t)
	n := NewNotifier(func(err error) { t.Error(err) })
	n.Ready()
	hear(t, old)
	path := old.LocalAddr().String()
	old.Close()
	os.Remove(path)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n.Status("again")
	if got := hear(t, c); got != "STATUS=again" {
		t.Errorf("%q", got)
	}
	n.Close(10 * time.Second)
}

func TestNobodyToNotify(t *testing.T) {
	os.Unsetenv("NOTIFY_SOCKET")
	n := NewNotifier(func(err error) { t.Error(err) })
	if n != nil {
		t.Fatal("somebody")
	}
	n.Ready()
	n.Reloading()
	n.Status("x")
	n.Stopping(0)
	n.Feed(context.Background(), time.Second, nil, nil)
	n.Close(time.Hour)
}

// However much is told while nobody reads, what comes in the end is one of
// each, in an order that makes sense, and the trouble is reported once.
func TestNewsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sent []string
		read := make(chan struct{})
		var problems []error
		n := newNotifier(func(m string) error {
			<-read
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, m)
			return nil
		}, func(err error) { problems = append(problems, err) })
		n.Ready()
		synctest.Wait()
		began := time.Now()
		for range 1000 {
			n.Reloading()
			n.Ready()
			n.Status(time.Now().String())
			n.alive()
		}
		n.Status("last")
		if time.Since(began) != 0 {
			t.Error("it was waited for")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(problems) != 1 || !errors.Is(problems[0], errUnread) {
			t.Errorf("%v", problems)
		}
		n.Close(time.Second)
		if d := time.Since(began); d != time.Hour+time.Second {
			t.Errorf("Close has taken %v", d-time.Hour)
		}
		close(read)
		<-n.done
		if len(sent) != 3 || sent[0] != "READY=1" || !strings.HasPrefix(sent[1], "RELOADING=1\nMONOTONIC_USEC=") ||
			sent[2] != "READY=1\nWATCHDOG=1\nSTATUS=last" {
			t.Errorf("%q", sent)
		}
	})
}

// A failure is reported when it begins, and again only after a success.
func TestFailuresAreReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		var problems atomic.Int32
		n := newNotifier(func(string) error {
			if fail.Load() {
				return errors.New("refused")
			}
			return nil
		}, func(error) { problems.Add(1) })
		for _, c := range []struct {
			fail bool
			want int32
		}{{false, 0}, {true, 1}, {true, 1}, {false, 1}, {true, 2}} {
			fail.Store(c.fail)
			n.alive()
			synctest.Wait()
			if problems.Load() != c.want {
				t.Errorf("%d reports, want %d", problems.Load(), c.want)
			}
		}
		n.Close(time.Second)
	})
}

// A full queue is as a manager that hangs has it: the socket is there, and every
// send waits.
func TestFullQueue(t *testing.T) {
	manager(t)
	reported := make(chan error, 2)
	n := NewNotifier(func(err error) { reported <- err })
	began := time.Now()
	for i := range 2000 {
		n.Status(strings.Repeat("x", i%100+1))
		n.Ready()
		if len(reported) > 0 {
			break
		}
		time.Sleep(time.Millisecond / 4)
	}
	select {
	case err := <-reported:
		if !errors.Is(err, errUnread) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is reported")
	}
	n.Close(10 * time.Millisecond)
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("%v", d)
	}
}

func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fed, problems, over atomic.Int32
		var dead atomic.Bool
		n := newNotifier(func(m string) error {
			if m == "WATCHDOG=1" {
				fed.Add(1)
			}
			return nil
		}, func(err error) { t.Error(err) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.Feed(ctx, 10*time.Second, func(most time.Duration) error {
				if most != 2500*time.Millisecond {
					t.Errorf("%v to find out", most)
				}
				if dead.Load() {
					time.Sleep(most)
					return errors.New("dead")
				}
				return nil
			}, func(err error) {
				problems.Add(1)
				if err == nil {
					over.Add(1)
				}
			})
		}()
		time.Sleep(20*time.Second + time.Millisecond)
		if fed.Load() != 5 { // at once, and after every 5 seconds
			t.Errorf("fed %d times", fed.Load())
		}
		dead.Store(true)
		time.Sleep(13 * time.Second) // until the second look has come to an end
		if fed.Load() != 5 || problems.Load() != 2 {
			t.Errorf("dead: fed %d times, %d problems", fed.Load(), problems.Load())
		}
		dead.Store(false)
		time.Sleep(10 * time.Second)
		if fed.Load() != 7 || problems.Load() != 3 || over.Load() != 1 {
			t.Errorf("alive again: fed %d times, %d problems, %d over", fed.Load(), problems.Load(), over.Load())
		}
		cancel()
		<-ended
		n.Close(time.Second)
	})
}

func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		err       bool
	}{
		{"", "", 0, false},
		{"0", "", 0, false},
		{"3000000", "", 3 * time.Second, false},
		{"3000000", "1", 0, false},
		{"soon", "", 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		got, err := Watchdog()
		if got != c.want || (err != nil) != c.err {
			t.Errorf("%q %q: %v, %v", c.usec, c.pid, got, err)
		}
		for _, name := range []string{"WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, ok := os.LookupEnv(name); ok {
				t.Errorf("%s is left", name)
			}
		}
	}
}
