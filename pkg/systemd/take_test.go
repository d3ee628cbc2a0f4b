package systemd

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func TestRead(t *testing.T) {
	known := func() (uint64, bool) { return 77, true }
	unknown := func() (uint64, bool) { return 0, false }
	for _, c := range []struct {
		name    string
		env     string // NAME=value, separated by spaces
		id      func() (uint64, bool)
		number  int
		names   []string
		ignored string // a part of it
		err     string
	}{
		{name: "nothing"},
		{name: "names only", env: "LISTEN_FDNAMES=a:b"},
		{name: "no process", env: "LISTEN_FDS=1", ignored: "LISTEN_PID is not set"},
		{name: "another process", env: "LISTEN_PID=41 LISTEN_FDS=1", ignored: "LISTEN_PID is 41"},
		{name: "process in words", env: "LISTEN_PID=self LISTEN_FDS=1", err: "LISTEN_PID=self is no process"},
		{name: "empty process", env: "LISTEN_PID= LISTEN_FDS=1", err: "is no process"},
		{name: "without names", env: "LISTEN_PID=42 LISTEN_FDS=2", number: 2, names: []string{"", ""}},
		{name: "none", env: "LISTEN_PID=42 LISTEN_FDS=0"},
		{name: "less than none", env: "LISTEN_PID=42 LISTEN_FDS=-1", err: "LISTEN_FDS=-1"},
		{name: "absurdly many", env: "LISTEN_PID=42 LISTEN_FDS=999999999", err: "LISTEN_FDS"},
		{name: "number in words", env: "LISTEN_PID=42 LISTEN_FDS=two", err: "LISTEN_FDS=two is no number"},
		{name: "names", env: "LISTEN_PID=42 LISTEN_FDS=2 LISTEN_FDNAMES=a:b", number: 2, names: []string{"a", "b"}},
		{name: "a name twice", env: "LISTEN_PID=42 LISTEN_FDS=2 LISTEN_FDNAMES=a:a", number: 2, names: []string{"a", "a"}},
		{name: "an empty name", env: "LISTEN_PID=42 LISTEN_FDS=3 LISTEN_FDNAMES=a::c", number: 3, names: []string{"a", "", "c"}},
		{name: "no escapes", env: `LISTEN_PID=42 LISTEN_FDS=1 LISTEN_FDNAMES=a\x3ab%3a`, number: 1, names: []string{`a\x3ab%3a`}},
		{name: "too few names", env: "LISTEN_PID=42 LISTEN_FDS=3 LISTEN_FDNAMES=a", number: 3, names: []string{"a", "", ""}},
		{name: "too many names", env: "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_FDNAMES=a:b", number: 1, names: []string{"a"}, err: "2 names for 1 descriptors"},
		{name: "this pidfd", env: "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_PIDFDID=77", id: known, number: 1, names: []string{""}},
		{name: "another pidfd", env: "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_PIDFDID=78", id: known, ignored: "LISTEN_PIDFDID is 78"},
		{name: "an old kernel", env: "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_PIDFDID=78", id: unknown, number: 1, names: []string{""}},
		{name: "pidfd in words", env: "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_PIDFDID=x", id: known, err: "LISTEN_PIDFDID=x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{}
			for _, kv := range strings.Fields(c.env) {
				k, v, _ := strings.Cut(kv, "=")
				env[k] = v
			}
			number, names, ignored, err := read(env, 42, c.id)
			if number != c.number || !slices.Equal(names, c.names) {
				t.Errorf("%d %q, want %d %q", number, names, c.number, c.names)
			}
			if (c.ignored == "") != (ignored == "") || !strings.Contains(ignored, c.ignored) {
				t.Errorf("ignored %q, want %q", ignored, c.ignored)
			}
			if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// What is good is taken, what is not is closed and reported, and the variables
// are gone.
func TestTake(t *testing.T) {
	t.Setenv(listenPID, strconv.Itoa(os.Getpid()))
	t.Setenv(listenFDs, "5")
	t.Setenv(listenNames, "mux:file:gone:conn")
	mux := service.Endpoint{Network: service.UnixStream, Path: "/mux"}
	var closed []int
	passed, ignored, errs := Take(Find{
		Now: func(fd int) (int, bool) { return fd + 100, fd != 5 },
		Inspect: func(fd int) (service.Endpoint, bool, error) {
			switch fd {
			case 104:
				return service.Endpoint{}, false, errors.New("not a socket")
			case 106:
				return mux, false, nil
			}
			return mux, true, nil
		},
		Close: func(fd int) error { closed = append(closed, fd); return nil },
	})
	if ignored != "" {
		t.Error(ignored)
	}
	if want := []service.Passed{{FD: 103, Name: "mux", Endpoint: mux}, {FD: 107, Endpoint: mux}}; !slices.Equal(passed, want) {
		t.Errorf("%v, want %v", passed, want)
	}
	var words []string
	for _, err := range errs {
		words = append(words, err.Error())
	}
	if diff := cmp.Diff([]string{
		`descriptor 4, "file": not a socket`,
		`descriptor 5, "gone": it is not open`,
		`descriptor 6, "conn": it is a connection, and no socket to serve on`,
	}, words); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(closed, []int{104, 106}) {
		t.Errorf("closed %d", closed)
	}
	for _, name := range []string{listenPID, listenPIDFDID, listenFDs, listenNames} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left", name, v)
		}
	}
}

// The error that a text has must not depend on it being sensible.
func FuzzRead(f *testing.F) {
	f.Add("42", "2", "a:b", "77")
	f.Add("42", "1", "a:b:c", "")
	f.Add("x", "-1", "::", "-")
	f.Fuzz(func(t *testing.T, pid, fds, names, id string) {
		env := map[string]string{listenPID: pid, listenFDs: fds, listenNames: names, listenPIDFDID: id}
		number, list, _, _ := read(env, 42, func() (uint64, bool) { return 77, true })
		if number != len(list) || number < 0 || number > maxFDs {
			t.Errorf("%d descriptors, %d names", number, len(list))
		}
		if number > 0 && strings.TrimLeft(strings.TrimPrefix(pid, "+"), "0") != "42" {
			t.Errorf("taken for process %q", pid)
		}
	})
}
