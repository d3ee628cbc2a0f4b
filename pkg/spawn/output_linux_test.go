//go:build amd64 || arm64

package spawn

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func TestOutput(t *testing.T) {
	testkit.Check(t)
	env := []string{"A=1", "GORACE=atexit_sleep_ms=0"}
	run := func(ctx context.Context, what string) (string, error) {
		out, err := Output(ctx, executable, helperArgv("output", what), env)
		return string(out), err
	}
	within := func(d time.Duration) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		t.Cleanup(cancel)
		return ctx
	}

	out, err := run(t.Context(), "env")
	if err != nil || out != strings.Join(env, "\n")+"\nstdin: EOF\n" {
		t.Errorf("env: %q, %v", out, err)
	}
	// Whether it succeeds does not matter.
	if out, err = run(t.Context(), "fail"); err != nil || out != "half" {
		t.Errorf("fail: %q, %v", out, err)
	}
	if out, err = run(t.Context(), "empty"); err != nil || out != "" {
		t.Errorf("empty: %q, %v", out, err)
	}
	if out, err = run(t.Context(), "max"); err != nil || len(out) != outputMax {
		t.Errorf("max: %d bytes, %v", len(out), err)
	}
	if out, err = run(t.Context(), "more"); err == nil || !strings.Contains(err.Error(), "bytes of output") {
		t.Errorf("more: %d bytes, %v", len(out), err)
	}
	// It has closed its output, so it is done, whatever else it does.
	if out, err = run(t.Context(), "close"); err != nil || out != "done" {
		t.Errorf("close: %q, %v", out, err)
	}
	if out, err = run(within(100*time.Millisecond), "hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %q, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if out, err = run(ctx, "hang"); !errors.Is(err, context.Canceled) {
		t.Errorf("hang: %q, %v", out, err)
	}
	if out, err = run(ctx, "env"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %q, %v", out, err)
	}
	if _, err := Output(t.Context(), "/nonexistent", []string{"x"}, nil); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no program: %v", err)
	}
}

func init() {
	// output WHAT is a program with output.
	helpers["output"] = func(args []string) (any, error) {
		switch args[0] {
		case "env":
			for _, e := range os.Environ() {
				os.Stdout.WriteString(e + "\n")
			}
			_, err := os.Stdin.Read(make([]byte, 1))
			os.Stdout.WriteString("stdin: " + err.Error() + "\n")
		case "fail":
			os.Stdout.WriteString("half")
			os.Exit(2)
		case "empty":
		case "max":
			os.Stdout.WriteString(strings.Repeat("x", outputMax))
		case "more":
			os.Stdout.WriteString(strings.Repeat("x", outputMax+1))
		case "close":
			os.Stdout.WriteString("done")
			os.Stdout.Close()
			time.Sleep(time.Minute)
		case "hang":
			os.Stdout.WriteString("hanging")
			time.Sleep(time.Minute)
		}
		return nil, nil
	}
}

// It does not matter whether another thread waits for any child: it gets the
// helper, or does not, and nobody hangs.
func TestOutputBesideReaper(t *testing.T) {
	testkit.Check(t)
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	defer func() {
		close(stop)
		<-done
	}()
	for range scaled(100) {
		out, err := Output(t.Context(), executable, helperArgv("output", "fail"), []string{"GORACE=atexit_sleep_ms=0"})
		if err != nil || string(out) != "half" {
			t.Fatalf("%q, %v", out, err)
		}
	}
}
