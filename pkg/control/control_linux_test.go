package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// TestMain lets the test binary be a client of another user.
func TestMain(m *testing.M) {
	if path := os.Getenv("ASK_AS_NOBODY"); path != "" {
		_, err := Ask(path, "hello")
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// listen serves at a path until the test ends.
func listen(t *testing.T, answer Handler) (path string, problems chan error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	problems = make(chan error, 10)
	done := make(chan error)
	go func() { done <- Serve(l, answer, func(err error) { problems <- err }) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path, problems
}

func TestAsk(t *testing.T) {
	testkit.Check(t)
	path, problems := listen(t, func(words []string) ([]string, error) {
		switch words[0] {
		case "fail":
			return []string{"before"}, errors.New("two\nlines")
		case "many":
			return slices.Repeat([]string{strings.Repeat("x", 100)}, 10_000), nil
		}
		return words, nil
	})
	for _, tt := range []struct {
		ask  string
		want int
		err  string
	}{
		{"one", 1, ""},
		{"one two  three", 3, ""},
		{"fail", 1, "two; lines"},
		{"many", 10_000, ""},
		{"", 0, "an empty question"},
	} {
		lines, err := Ask(path, tt.ask)
		if len(lines) != tt.want || fmt.Sprint(err) != cmpErr(tt.err) {
			t.Errorf("%q: %d lines, %v", tt.ask, len(lines), err)
			select {
			case err := <-problems:
				t.Error(err)
			default:
			}
		}
	}
	if _, err := Ask(path+"x", "one"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func cmpErr(s string) string {
	if s == "" {
		return "<nil>"
	}
	return s
}

// What is no question ends by itself, and the next one is answered.
func TestNoQuestion(t *testing.T) {
	testkit.Check(t)
	path, problems := listen(t, func(words []string) ([]string, error) { return words, nil })
	for _, text := range []string{"", "half a question", strings.Repeat("x", 2*maxQuestion)} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(text))
		c.Close()
		if err := <-problems; err == nil || !strings.Contains(err.Error(), "no question") {
			t.Error(err)
		}
	}
	if lines, err := Ask(path, "one"); err != nil || len(lines) != 1 {
		t.Error(lines, err)
	}
}

// Whoever is not root is not heard, even where the mode lets him in.
func TestNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the rest needs another user")
		return
	}
	path, problems := listen(t, func([]string) ([]string, error) {
		t.Error("answered")
		return nil, nil
	})
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe") // where it is, others may not look
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(path), "client")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "ASK_AS_NOBODY="+path)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "only root may ask\n") {
		t.Errorf("%s%v", out, err)
	}
	if err := <-problems; err == nil || !strings.Contains(err.Error(), "user 65534") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a\nb\nok\n")
	f.Add("error: why\n")
	f.Add("ok")
	f.Fuzz(func(t *testing.T, answer string) {
		lines, err := parse(answer)
		if err != nil {
			return
		}
		if back := strings.Join(append(lines, "ok"), "\n") + "\n"; back != answer {
			t.Errorf("%q is %q", answer, lines)
		}
	})
}
