package logs

import (
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSyslog: a message a line, of its severity; what finds nobody is counted.
func TestSyslog(t *testing.T) {
	if _, err := NewSyslog("nonesuch", "inetd"); err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("no such facility: %v", err)
	}
	s, err := NewSyslog("LOCAL3", "inetd")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log")
	s.dial = func() (*syslog.Writer, error) { return syslog.Dial("unixgram", path, syslog.LOG_LOCAL3, "inetd") }
	if _, err := s.Write([]byte("time=T level=INFO msg=a\ntime=T level=INFO msg=b\n")); err == nil {
		t.Error("two lines to nobody: no error")
	}
	listen := func() *net.UnixConn {
		t.Helper()
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	next := func(c *net.UnixConn) string {
		t.Helper()
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	c := listen()
	s.next = time.Time{} // the time is up
	if _, err := s.Write([]byte("time=T level=INFO msg=c\ntime=T level=ERROR msg=\"d level=DEBUG\"\n{\"time\":\"T\",\"level\":\"WARN\",\"msg\":\"e\"}\n")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ pri, text string }{
		{"<156>", ` lines=2`},
		{"<158>", `]: level=INFO msg=c`},
		{"<155>", `]: level=ERROR msg="d level=DEBUG"`},
		{"<156>", `"msg":"e"}`},
	} {
		got := next(c)
		if !strings.HasPrefix(got, want.pri) || !strings.HasSuffix(strings.TrimSuffix(got, "\n"), want.text) || !strings.Contains(got, " inetd[") {
			t.Errorf("got %q, want %s…%s", got, want.pri, want.text)
		}
	}
	// Who is started again is found again.
	c.Close()
	os.Remove(path)
	c = listen()
	if _, err := s.Write([]byte("time=T level=INFO msg=again\n")); err != nil {
		t.Fatal(err)
	}
	if got := next(c); !strings.Contains(got, "msg=again") {
		t.Errorf("got %q", got)
	}
}
