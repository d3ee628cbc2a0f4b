// What is logged. There is one log, and a line of it has all that is known: what
// the attributes choose from.

package xinetd

import (
	"slices"
	"strings"
)

var (
	success = []string{"PID", "HOST", "USERID", "EXIT", "DURATION", "TRAFFIC"}
	failure = []string{"HOST", "USERID", "ATTEMPT", "RECORD"}
)

// logs reads log_type, log_on_success and log_on_failure.
func (s *scope) logs() {
	for _, a := range s.lines("log_type") {
		switch v := a.values[0]; {
		case v.V == "FILE" && len(a.values) >= 2 && len(a.values) <= 4:
			s.lost(a.values[1], "gets no lines: there is one log, of the daemon, and it has all services; it is not cut off at a size")
		case v.V == "SYSLOG" && len(a.values) >= 2 && len(a.values) <= 3:
			s.lost(a.values[1], "is no facility of a service's own: there is one log, of the daemon, and it has all services")
		case v.V == "FILE":
			s.bad(a, v, "wants a path and at most two sizes; write log_type = FILE /path")
		case v.V == "SYSLOG":
			s.bad(a, v, "wants a facility and at most a level; write log_type = SYSLOG daemon info")
		default:
			s.bad(a, v, "is no type of log; write SYSLOG or FILE")
		}
	}
	for _, attr := range []struct {
		name  string
		words []string
	}{{"log_on_success", success}, {"log_on_failure", failure}} {
		for _, a := range s.lines(attr.name) {
			for _, v := range a.values {
				switch {
				case !slices.Contains(attr.words, v.V):
					s.bad(a, v, "is no word of %s; write %s", attr.name, either(v.V, attr.words))
				case a.op == "-=":
				case v.V == "USERID":
					s.lost(v, "is lost: no peer is asked who its user is (RFC 1413)")
				case v.V == "RECORD":
					s.lost(v, "is lost: nothing is asked of a peer that is refused")
				}
				if strings.HasPrefix(v.V, "#") {
					break
				}
			}
		}
	}
}

// log is logs of a service.
func (s *svc) log() {
	s.logs()
	if s.kind == relay {
		return
	}
	for _, a := range s.lines("log_on_success") {
		for _, v := range a.values {
			if v.V == "TRAFFIC" && a.op != "-=" {
				s.bad(a, v, "is for services that are redirected, and xinetd leaves others out; take it out")
			}
		}
	}
}
