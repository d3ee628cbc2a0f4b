// The log as it reaches whoever reads it, or does not.

package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Both formats say the same, in the same words, and can be parsed.
func TestLogFormats(t *testing.T) {
	t.Parallel()
	pair := regexp.MustCompile(`^[a-z_]+=("([^"\\]|\\.)*"|[^ "=]+)$`)
	for _, format := range []string{"text", "json"} {
		mux := local(t)
		path := tempDir(t) + "/log"
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		d := launch(t, fmt.Sprintf("[server]\nlog_format = %q\n"+dateTable, format, strings.TrimPrefix(mux, "127.0.0.1:")), &how{stderr: file})
		log := func() string {
			text, _ := os.ReadFile(path)
			return string(text)
		}
		waitFor := func(what string) {
			t.Helper()
			if !poll(bound, func() bool { return strings.Contains(log(), what) }) {
				t.Fatalf("no %q in the log:\n%s", what, log())
			}
		}
		waitFor("serving")
		// A name with what would break a line apart, if anything could.
		expect(t, "", mux, "na me=\"x\" \\ é\r\n", "-Service name has a bad character\r\n")
		expect(t, "", mux, "na me=\"x\" \\\r\n", replyNo)
		if got, err := talk("", mux, "date\r\n"); err != nil || !strings.HasPrefix(got, replyGo) {
			t.Errorf("date is answered %q, %v", got, err)
		}
		waitFor("maxrss_kb")
		if code := d.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		var msgs []string
		for line := range strings.Lines(log()) {
			line = strings.TrimSuffix(line, "\n")
			var e event
			if format == "json" {
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Errorf("%q: %v", line, err)
				}
			} else {
				e = event{}
				for _, p := range regexp.MustCompile(`[^ =]+=("([^"\\]|\\.)*"|[^ ]*)`).FindAllString(line, -1) {
					if !pair.MatchString(p) {
						t.Errorf("%q is no key=value, in %q", p, line)
					}
					k, v, _ := strings.Cut(p, "=")
					if u := ""; json.Unmarshal([]byte(v), &u) == nil {
						v = u
					}
					e[k] = v
				}
			}
			for _, key := range []string{"time", "level", "msg"} {
				if e.text(key) == "" {
					t.Errorf("%q has no %s", line, key)
				}
			}
			if _, err := time.Parse(time.RFC3339Nano, e.text("time")); err != nil {
				t.Error(err)
			}
			msgs = append(msgs, e.text("msg"))
			switch e.text("msg") {
			case "start", "end":
				for _, key := range []string{"service", "peer", "local", "pid"} {
					if e[key] == nil {
						t.Errorf("%q has no %s", line, key)
					}
				}
			case "refuse":
				if e["name"] != nil && e.text("name") != "na me=\"x\" \\" {
					t.Errorf("the name is %q", e.text("name"))
				}
			}
		}
		want := "listen,serving,refuse,refuse,start,end,stopping,close,stopped"
		if got := strings.Join(msgs, ","); got != want {
			t.Errorf("%s: the events are %s, want %s", format, got, want)
		}
	}
}

// A log that nobody reads: the daemon serves and refuses as if nothing were,
// and says afterwards how much is missing.
func TestStalledStderr(t *testing.T) {
	const connections, clients = 10_000, 8
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	served, denied := local(t), local(t)
	d := launch(t, jsonLog+
		fmt.Sprintf("[service.%s]\nlisten = [%q]\nexec = [\"/bin/echo\", \"ok\"]\nuser = \"nobody\"\n", strings.Repeat("served", 40), served)+
		fmt.Sprintf("[service.denied]\nlisten = [%q]\nexec = [\"/bin/true\"]\nuser = \"nobody\"\naccess = { deny = [\"127.0.0.1\"] }\n", denied),
		&how{stderr: w, shipped: true})
	if !poll(bound, func() bool {
		c, err := connect("", denied)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		t.Fatal("the daemon does not serve")
	}
	var slowest time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range connections / clients {
				began := time.Now()
				addr, want := denied, ""
				if i%4 == 0 {
					addr, want = served, "ok\n"
				}
				if got, err := talk("", addr, ""); got != want || err != nil && want != "" {
					t.Errorf("%s says %q, %v", addr, got, err)
					return
				}
				mu.Lock()
				slowest = max(slowest, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("the slowest of %d connections took %v", connections, slowest)
	if slowest > 5*time.Second {
		t.Errorf("a connection took %v", slowest)
	}
	// Now somebody reads again. The end of the daemon ends the log.
	log := readLog(r)
	dropped, starts := 0, 0
	if !poll(bound, func() bool {
		d.log = log
		return len(d.events("log lines were dropped: whoever reads the log is too slow")) > 0
	}) {
		t.Fatal("the log does not say that lines were dropped")
	}
	d.log = log
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, e := range d.events("log lines were dropped: whoever reads the log is too slow") {
		dropped += e.number("lines")
	}
	starts = len(d.events("start")) + len(d.events("end"))
	t.Logf("%d starts and ends are in the log, %d lines were dropped", starts, dropped)
	if all := connections / 4 * 2; starts+dropped < all || dropped > all+100 {
		t.Errorf("%d lines and %d dropped ones are not the %d starts and ends", starts, dropped, all)
	}
	d.how.leaves, d.log = true, readLog(io.NopCloser(strings.NewReader(""))) // lines are missing, so nothing can be told from it
}

// The reader of the log has gone: a SIGPIPE or an error at every line.
func TestStderrWithoutReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	addr := local(t)
	d := launch(t, jsonLog+sayRow("a", addr, "ok"), &how{stderr: w})
	for range 50 {
		if !poll(bound, func() bool {
			got, err := talk("", addr, "")
			return err == nil && got == "ok\n"
		}) {
			t.Fatal("no answer")
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
