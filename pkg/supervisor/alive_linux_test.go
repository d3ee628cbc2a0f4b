package supervisor

// Whether the accept path is alive, and who gets the signals of a container.

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// TestAlive: it takes every loop, in service, for an answer.
func TestAlive(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := prepare(t, table(direct("row", port, cat())))
	if err := s.Alive(10 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "has handled no event") {
		t.Errorf("before Run: %v", err)
	}
	s.run()
	for range 100 {
		if err := s.Alive(bound); err != nil {
			t.Fatal(err)
		}
	}

	// One connection keeps one loop from coming round, and that is enough.
	u := s.unit("row")
	u.mu.Lock()
	c := dial(t, port).send("x")
	var err error
	held := poll(bound, func() bool { err = s.Alive(20 * time.Millisecond); return err != nil })
	u.mu.Unlock()
	if !held || strings.Count(err.Error(), "has handled no event") != 1 {
		t.Errorf("with a loop that is held: %v", err)
	}
	if err := s.Alive(bound); err != nil {
		t.Error(err)
	}
	c.half().ends("x")

	s.stop()
	if err := s.Alive(time.Hour); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// TestCatches: whether a process has a handler is what the kernel says.
func TestCatches(t *testing.T) {
	// "ready" comes when the handler is there.
	cmd := exec.Command("/bin/sh", "-c", "trap : HUP; echo ready; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if !catches(cmd.Process.Pid, syscall.SIGHUP) {
		t.Error("the handler is not seen")
	}
	if catches(cmd.Process.Pid, syscall.SIGUSR1) {
		t.Error("a handler is seen where none is")
	}
	if catches(1<<22+1, syscall.SIGHUP) {
		t.Error("nobody has a handler")
	}
}
