package testkit

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLeaksFindsDescriptor(t *testing.T) {
	openPoller()
	before := snapshot()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	leaks := before.leaks(10 * time.Millisecond)
	f.Close()
	if len(leaks) != 1 || !strings.Contains(leaks[0], "/dev/null") {
		t.Errorf("leaks = %q, want the one descriptor", leaks)
	}
	if leaks := before.leaks(patience); len(leaks) > 0 {
		t.Errorf("still there after its end: %q", leaks)
	}
}

func TestCheckForgivesPooledPipes(t *testing.T) {
	r := &recorder{TB: t}
	Check(r)
	a, b := tcpPair(t)
	c, d := tcpPair(t)
	done := make(chan bool)
	go func() { io.Copy(d, a); d.Close(); close(done) }()
	io.WriteString(b, "through a pipe")
	b.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "through a pipe" {
		t.Errorf("copied %q, %v", got, err)
	}
	<-done
	a.Close()
	c.Close()
	r.end()
	if len(r.errors) > 0 {
		t.Errorf("found leaks that are none: %v", r.errors)
	}
}

func tcpPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestCheckFindsZombie(t *testing.T) {
	r := &recorder{TB: t}
	Check(r)
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitDead(t, cmd.Process.Pid)
	cmd.Process.Release()
	r.end()
	if len(r.errors) != 1 || !strings.Contains(r.errors[0].(string), "zombie") {
		t.Errorf("errors = %v, want one zombie", r.errors)
	}
}

func TestCheckLetsLivingChildrenBe(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	Check(r)
	r.end()
	if len(r.errors) > 0 {
		t.Errorf("errors = %v, want none", r.errors)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

// waitDead returns when the child has exited, and leaves it a zombie.
func waitDead(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}
