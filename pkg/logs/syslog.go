package logs

// Where the lines go that are for syslogd(8), as inetds log: one message a line,
// of the severity that stands in the line.

import (
	"bytes"
	"errors"
	"fmt"
	"log/syslog"
	"strings"
	"time"
)

// facilities are those of syslog.conf(5) that a daemon may log as.
var facilities = map[string]syslog.Priority{
	"kern": syslog.LOG_KERN, "user": syslog.LOG_USER, "mail": syslog.LOG_MAIL, "daemon": syslog.LOG_DAEMON,
	"auth": syslog.LOG_AUTH, "authpriv": syslog.LOG_AUTHPRIV, "lpr": syslog.LOG_LPR, "news": syslog.LOG_NEWS,
	"uucp": syslog.LOG_UUCP, "cron": syslog.LOG_CRON, "ftp": syslog.LOG_FTP,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// redial is how long nobody is looked for after nobody was there.
const redial = time.Second

// A Syslog is an io.Writer of whole lines, as a Handler makes them, to the
// syslogd(8) of this machine. It waits where that does, so it belongs behind a
// Writer. Lines for which nobody is there are counted, and the number is sent when
// somebody is. It must not be used concurrently.
type Syslog struct {
	dial func() (*syslog.Writer, error)
	out  *syslog.Writer // nil: nobody is there
	next time.Time      // when somebody is looked for again
	lost uint64
}

// NewSyslog makes one whose messages are of a facility, by its name in
// syslog.conf(5), and of a tag, the name of the program. It connects to nobody yet.
func NewSyslog(facility, tag string) (*Syslog, error) {
	p, ok := facilities[strings.ToLower(facility)]
	if !ok {
		return nil, fmt.Errorf("there is no syslog facility %q; write such as daemon, auth or local0", facility)
	}
	return &Syslog{dial: func() (*syslog.Writer, error) { return syslog.New(p|syslog.LOG_INFO, tag) }}, nil
}

// Write sends each of the lines. The error is of those that were not taken.
func (s *Syslog) Write(lines []byte) (int, error) {
	var failed error
	for line := range bytes.Lines(lines) {
		if err := s.send(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			s.lost++
			failed = err
		}
	}
	return len(lines), failed
}

var errNobody = errors.New("there is no syslogd")

// send sends one line, and before it how many were lost.
func (s *Syslog) send(line []byte) error {
	if s.out == nil {
		now := time.Now()
		if now.Before(s.next) {
			return errNobody
		}
		out, err := s.dial()
		if err != nil {
			s.next = now.Add(redial)
			return err
		}
		s.out = out
	}
	if s.lost > 0 {
		if err := s.out.Warning(fmt.Sprintf("level=WARN msg=%q lines=%d", "log lines were lost: nobody took them", s.lost)); err != nil {
			return s.gone(err)
		}
		s.lost = 0
	}
	if err := severity(s.out, line)(string(untimed(line))); err != nil {
		return s.gone(err)
	}
	return nil
}

// gone has somebody looked for with the next line: package syslog itself has tried
// to connect again.
func (s *Syslog) gone(err error) error {
	s.out.Close()
	s.out = nil
	return err
}

// severity is how a line of its level is sent.
func severity(w *syslog.Writer, line []byte) func(string) error {
	head := line[:min(len(line), 80)] // time and level come first
	for _, level := range []struct {
		word string
		send func(string) error
	}{{"ERROR", w.Err}, {"WARN", w.Warning}, {"DEBUG", w.Debug}} {
		if bytes.Contains(head, []byte(" level="+level.word+" ")) || bytes.Contains(head, []byte(`"level":"`+level.word+`"`)) {
			return level.send
		}
	}
	return w.Info
}

// untimed is a line without its time, which the message has anyway.
func untimed(line []byte) []byte {
	if bytes.HasPrefix(line, []byte("time=")) {
		if _, rest, ok := bytes.Cut(line, []byte(" ")); ok {
			return rest
		}
	}
	return line
}
