package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// TestStyleFromDefaults: what [defaults] says of sockets is taken where it fits,
// and never an error where it does not.
func TestStyleFromDefaults(t *testing.T) {
	for _, tt := range []struct{ defaults, row, want string }{
		{"", "listen = \"5\"", "tcp4 tcp6"},
		{"", "listen = \"5\"\nprotocol = \"udp\"", "udp4 udp6"},
		{"", "listen = \"5\"\nprotocol = \"udp6\"", "udp6"},
		{"", "listen = \"5\"\nsocket = \"dgram\"", "udp4 udp6"},
		{"", "listen = \"/run/a\"\nprotocol = \"unix\"", "unix"},
		{"", "listen = \"vsock:5\"\nprotocol = \"vsock\"", "vsock"},
		{"", "listen = \"@a\"\nsocket = \"seqpacket\"", "unix seqpacket"},
		{"", "listen = \"vsock:5\"\nsocket = \"seqpacket\"", "vsock seqpacket"},
		{"protocol = \"tcp4\"", "listen = \"5\"", "tcp4"},
		{"protocol = \"tcp4\"", "listen = \"5\"\nsocket = \"dgram\"", "udp4 udp6"},
		{"protocol = \"udp4\"", "listen = \"5\"", "udp4"},
		{"protocol = \"udp4\"", "listen = \"5\"\nsocket = \"stream\"", "tcp4 tcp6"},
		{"socket = \"dgram\"", "listen = \"5\"", "udp4 udp6"},
		{"socket = \"dgram\"", "listen = \"5\"\nprotocol = \"tcp6\"", "tcp6"},
		{"socket = \"dgram\"", "listen = \"5\"\nbuiltin = \"tcpmux\"", "tcp4 tcp6"},
		{"socket = \"dgram\"", "listen = \"5\"\nforward = \"192.0.2.1:5\"", "tcp4 tcp6"},
		{"socket = \"seqpacket\"", "listen = \"5\"\nbuiltin = \"echo\"", "tcp4 tcp6"},
		{"socket = \"dgram\"\nprotocol = \"udp4\"\nwait = true", "listen = \"5\"\nbuiltin = \"echo\"", "udp4"},
		{"socket = \"dgram\"\nwait = true", "listen = [\"/run/a\", \"5\"]", "unix dgram,udp4 udp6"},
	} {
		exec := ""
		if !strings.Contains(tt.row, "builtin") && !strings.Contains(tt.row, "forward") {
			exec = "exec = \"/bin/a\"\nuser = \"root\"\n"
		}
		rows := must(t, "[defaults]\n"+tt.defaults+"\n[service.a]\n"+exec+tt.row+"\n", asRoot())
		var got []string
		for _, e := range rows["a"].Listen {
			got = append(got, e.Network.String())
		}
		if want := strings.ReplaceAll(tt.want, ",", " "); strings.Join(got, " ") != want {
			t.Errorf("%q, %q: %v, want %s", tt.defaults, tt.row, got, want)
		}
		if wait := strings.Contains(tt.defaults, "wait") && exec != ""; rows["a"].Wait != wait {
			t.Errorf("%q, %q: wait %v", tt.defaults, tt.row, !wait)
		}
	}
}

// TestRunsFromDefaults: a row that runs something takes nothing to run.
func TestRunsFromDefaults(t *testing.T) {
	const all = "[defaults]\nuser = \"root\"\nexec = \"/bin/d\"\nbuiltin = \"echo\"\nforward = \"192.0.2.9:9\"\nlisten = \"5\"\n"
	for _, tt := range []struct{ defaults, id, row, want string }{
		{all, "a", "", "/bin/d none []"},
		{all, "a", "exec = \"/bin/a\"", "/bin/a none []"},
		{all, "a", "builtin = \"time\"", " time []"},
		{all, "a", "forward = \"192.0.2.1:1\"", " none [192.0.2.1:1]"},
		{all, "tcpmux/+a", "builtin = \"time\"", " time []"},
		{all, "tcpmux/a", "", "/bin/d none []"},
		{"[defaults]\nforward = \"192.0.2.9:9\"\n", "tcpmux/a", "", " none [192.0.2.9:9]"},
		{"[defaults]\nbuiltin = \"echo\"\n", "tcpmux/+a", "", " echo []"},
	} {
		s := must(t, fmt.Sprintf("%s[service.%q]\n%s\n", tt.defaults, tt.id, tt.row), asRoot())[tt.id]
		path, targets := "", []service.Target(nil)
		if s.Exec != nil {
			path = s.Exec.Path
		}
		if s.Forward != nil {
			targets = s.Forward.Targets
		}
		if got := fmt.Sprint(path, " ", s.Builtin, " ", targets); got != tt.want {
			t.Errorf("%q, %q: %s, want %s", tt.defaults, tt.row, got, tt.want)
		}
	}
}

// TestVanishedPeers: a row whose users have all gone lets nobody in.
func TestVanishedPeers(t *testing.T) {
	text := "[service.a]\nlisten = [\"/run/a\", \"@a\"]\nexec = \"/bin/a\"\nuser = \"root\"\naccess = { uids = \"gone\", gids = [\"gone\"] }\nsocket_user = \"gone\"\n"
	if _, _, err := compile(t, text, asRoot()); err == nil || strings.Count(err.Error(), "unknown") != 3 {
		t.Errorf("error %v", err)
	}
	o := asRoot()
	o.VanishedUsers = true
	table, warnings, err := compile(t, text, o)
	if err != nil || len(warnings) != 3 {
		t.Fatalf("%v, %v", warnings, err)
	}
	s := table.Services[0]
	if s.Refuse == "" || s.Users == nil || s.Users.Allows(0, 0, []uint32{0}) || s.Socket.UID != -1 {
		t.Errorf("%+v", s)
	}
}

func TestCPUs(t *testing.T) {
	for in, want := range map[string][]int{"0": {0}, "0-3,7": {0, 1, 2, 3, 7}, " 5 , 1-1": {5, 1}, "8191": {8191},
		"": nil, ",": nil, "1-": nil, "-1": nil, "3-2": nil, "8192": nil, "a": nil, "0x1": nil, "0-1-2": nil} {
		got, ok := parseCPUs(in)
		if ok != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("parseCPUs(%q) = %v, %v", in, got, ok)
		}
	}
	for want, in := range map[string][]int{"": nil, "3": {3}, "0-2,4,6-7": {0, 1, 2, 4, 6, 7}} {
		if got := formatCPUs(in); got != want {
			t.Errorf("formatCPUs(%v) = %q", in, got)
		}
	}
}

func TestAmount(t *testing.T) {
	for _, tt := range []struct {
		in   string
		unit unit
		want uint64
		ok   bool
	}{
		{"0", plainUnit, 0, true}, {"18446744073709551615", plainUnit, 1<<64 - 1, true}, {"18446744073709551616", plainUnit, 0, false},
		{"unlimited", plainUnit, service.RlimInfinity, true}, {"1K", plainUnit, 0, false}, {"+1", plainUnit, 0, false}, {" 1", plainUnit, 0, false},
		{"1K", bytesUnit, 1 << 10, true}, {"2M", bytesUnit, 2 << 20, true}, {"3G", bytesUnit, 3 << 30, true}, {"4T", bytesUnit, 4 << 40, true},
		{"16777215T", bytesUnit, 16777215 << 40, true}, {"16777216T", bytesUnit, 0, false}, {"K", bytesUnit, 0, false}, {"1k", bytesUnit, 0, false}, {"", bytesUnit, 0, false},
		{"90s", secondsUnit, 90, true}, {"1h30m", secondsUnit, 5400, true}, {"1500ms", secondsUnit, 0, false}, {"-1s", secondsUnit, 0, false},
		{"1ms", microsUnit, 1000, true}, {"1ns", microsUnit, 0, false},
	} {
		if got, ok := amount(tt.in, tt.unit); ok != tt.ok || ok && got != tt.want {
			t.Errorf("amount(%q, %d) = %d, %v", tt.in, tt.unit, got, ok)
		}
	}
}
