package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// accounts is a made-up machine.
type accounts struct{}

var (
	testUsers = map[string]account.User{
		"root":   {Name: "root", UID: 0, GID: 0, Home: "/root", Shell: "/bin/bash"},
		"nobody": {Name: "nobody", UID: 65534, GID: 65534, Home: "/nonexistent", Shell: "/usr/sbin/nologin"},
		"alice":  {Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/sh"},
	}
	testGroups = map[string]uint32{"root": 0, "adm": 4, "ftp": 50, "nogroup": 65534, "alice": 1000}
	testPorts  = map[string]uint16{"tcpmux": 1, "ftp": 21, "ssh": 22, "time": 37, "auth": 113, "http": 80, "www": 80, "git": 9418,
		"echo": 7, "discard": 9, "daytime": 13, "chargen": 19}
	testUDPPorts = map[string]uint16{"tftp": 69, "ntalk": 518, "time": 37, "echo": 7, "discard": 9, "daytime": 13, "chargen": 19}
)

func (accounts) User(name string) (account.User, error) {
	if u, ok := testUsers[name]; ok {
		return u, nil
	}
	for _, u := range testUsers {
		if fmt.Sprint(u.UID) == name {
			return u, nil
		}
	}
	if name == "4711" {
		return account.User{Name: name, UID: 4711, Home: "/", Shell: "/bin/sh", Bare: true}, nil
	}
	if name == "slow" {
		return account.User{}, errors.New("asking getent passwd slow: timed out")
	}
	return account.User{}, fmt.Errorf("user %q: %w", name, account.ErrUnknown)
}

func (accounts) Group(name string) (uint32, error) {
	if g, ok := testGroups[name]; ok {
		return g, nil
	}
	if name == "1234" {
		return 1234, nil
	}
	return 0, fmt.Errorf("group %q: %w", name, account.ErrUnknown)
}

func (accounts) Groups(u account.User) ([]uint32, error) {
	if u.Name == "alice" {
		return []uint32{50, 4}, nil
	}
	return nil, nil
}

func (accounts) Port(protocol, name string) (uint16, error) {
	if p, ok := map[string]map[string]uint16{"tcp": testPorts, "udp": testUDPPorts}[protocol][name]; ok {
		return p, nil
	}
	return 0, account.ErrUnknown
}

// berlin is a tzfile(5) of the second form that has only a rule.
var berlin = func() []byte {
	block := func(version string) string {
		return "TZif" + version + strings.Repeat("\x00", 15) + strings.Repeat("\x00", 19) + "\x01\x00\x00\x00\x04" + "\x00\x00\x0e\x10\x00\x00" + "CET\x00"
	}
	return []byte(block("2") + block("2") + "\nCET-1CEST,M3.5.0,M10.5.0/3\n")
}()

// asRoot are options of a root daemon on the made-up machine; every program is
// there but those called missing.
func asRoot() *Options {
	there := func(path string) error {
		if strings.Contains(path, "missing") {
			return fs.ErrNotExist
		}
		return nil
	}
	hard := make([]uint64, len(rlimitKeys))
	for i := range hard {
		hard[i] = service.RlimInfinity
	}
	hard[7], hard[8] = 20000, 8<<20 // nofile, memlock
	return (&Options{
		Accounts: accounts{}, UnprivilegedPort: 1024, Native: true, LoadAverage: true, Pressure: true,
		HardLimits: hard, MaxFiles: 1 << 20, CPUs: []int{0, 1, 2, 3, 6},
		Environ: []string{"LANG=C.UTF-8", "LANG=second", "SECRET=x", "PROTO=y"},
		Program: there, Dir: there,
		ReadFile: func(path string) ([]byte, error) {
			switch path {
			case "/etc/default/ftp":
				return []byte("# comment\n\nA=from file\r\nB=\"quotes stay\"\n"), nil
			case "/etc/tcpmuxd/busy":
				return []byte("come again later\n"), nil
			case "/etc/tcpmuxd/banner":
				return []byte("come again\r\nlater\n"), nil
			case "/etc/tcpmuxd/empty":
				return nil, nil
			case "/etc/default/bad":
				return []byte("NOEQUALS\n9=x\nTCPREMOTEIP=1\nexport X=1\nN=\x00\n"), nil
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
		ReadSet: func(path string) ([]byte, error) {
			switch path {
			case "/etc/tcpmuxd/office":
				return []byte("# the office\n192.0.2.0/24\n\n  2001:db8:1::/48 # upstairs\r\n198.51.100.7"), nil
			case "/etc/tcpmuxd/partners":
				return []byte("198.51.100.0/25\n"), nil
			case "/etc/tcpmuxd/empty":
				return []byte("# nobody\n"), nil
			case "/etc/tcpmuxd/bad":
				return []byte("192.0.2.1/24\nx\n10.0.0.0/8\n1\n2\n3\n4\n5\n"), nil
			}
			return hostsFile(path)
		},
		Zone: func(name string) ([]byte, error) {
			switch name {
			case "", "Europe/Berlin":
				return berlin, nil
			case "Broken/Zone":
				return []byte("TZif?"), nil
			}
			return nil, &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
	}).AsRoot()
}

// asAlice are options of a daemon that alice started.
func asAlice() *Options {
	o := asRoot()
	o.UID, o.GID, o.BindPrivileged, o.NetAdmin, o.NetRaw = 1000, 1000, false, false, false
	o.SysChroot, o.SysAdmin, o.SysNice, o.SysResource = false, false, false, false
	return o
}

func compile(t *testing.T, text string, o *Options) (*service.Table, []*Problem, error) {
	t.Helper()
	f, _ := Parse("t.toml", text)
	return Compile(f, o)
}

// must compiles text, which must be without errors.
func must(t *testing.T, text string, o *Options) map[string]*service.Service {
	t.Helper()
	table, _, err := compile(t, text, o)
	if err != nil {
		t.Fatalf("Compile:\n%v\nin:\n%s", err, text)
	}
	rows := make(map[string]*service.Service)
	for _, s := range table.Services {
		rows[s.ID] = s
	}
	return rows
}

func TestWholeRow(t *testing.T) {
	got := must(t, `
[service.files]
name = "ftp"
protocol = "tcp"
listen = ["192.0.2.1:ftp", "[2001:db8::1]:21", "*:2121", "[::ffff:192.0.2.7]:21", "[fe80::1%eth0]:21"]
backlog = 128
keepalive = { idle = "2h", interval = "75s", count = 9 }
nodelay = true
defer_accept = "30s"
reuseport = true
freebind = true
bind_to_device = "eth0"
rcvbuf = 65536
sndbuf = 32768
mark = 7
tos = 0x10
ttl = 64
priority = 7
congestion = "reno"
transparent = true
stdout = "log"
stderr = "null"
chroot = "/srv/./jail/"
rlimits = { nofile = "256:1024", core = 0, cpu = "10m", as = "64M", stack = "unlimited", rttime = "1ms" }
nice = -5
ioprio = "best-effort:7"
oom_score_adj = -500
cpus = ["0-2", "1,6"]
exec = ["/usr/sbin/ftpd", "-l", ""]
argv0 = "in.ftpd"
user = "alice"
cwd = "/srv//ftp/"
umask = "027"
env_file = "/etc/default/ftp"
env_pass = ["LANG", "NOTSET"]
env = { B = "own", HOME = "/srv" }
access = { allow = ["192.0.2.0/24", "::ffff:10.0.0.0/104"], deny = ["192.0.2.66"] }
limits = { instances = 40, instances_per_source = 0, rate = "256/min", burst = 20, rate_per_source = "60/hour", source_prefix_v4 = 24, source_prefix_v6 = 56, overflow = "queue" }
on_reload = "end"
on_stop = "kill"
`, asRoot())["files"]
	at := func(n service.Network, s string) service.Endpoint {
		return service.Endpoint{Network: n, Addr: netip.MustParseAddrPort(s)}
	}
	want := &service.Service{
		ID: "files", Name: "ftp",
		Listen: []service.Endpoint{
			at(service.TCP4, "192.0.2.1:21"), at(service.TCP6, "[2001:db8::1]:21"),
			at(service.TCP4, "0.0.0.0:2121"), at(service.TCP6, "[::]:2121"),
			at(service.TCP4, "192.0.2.7:21"), at(service.TCP6, "[fe80::1%eth0]:21"),
		},
		Socket: service.Socket{
			Backlog: 128, Keepalive: service.Keepalive{On: true, Idle: 2 * time.Hour, Interval: 75 * time.Second, Count: 9},
			Nodelay: true, DeferAccept: 30 * time.Second, ReusePort: true, Freebind: true, BindToDevice: "eth0",
			Rcvbuf: 65536, Sndbuf: 32768, Mark: 7, TOS: 16, TTL: 64, Priority: 7, Congestion: "reno", Transparent: true,
			Mode: 0o666, UID: -1, GID: -1, DirectoryMode: 0o755,
		},
		Exec: &service.Exec{
			Path: "/usr/sbin/ftpd", Argv: []string{"in.ftpd", "-l", ""}, Dir: "/srv/ftp", Umask: 0o27,
			Chroot: "/srv/jail", Stdout: service.StdioLog, Stderr: service.StdioNull,
			Rlimits: []service.Rlimit{{Resource: 0, Soft: 600, Hard: 600}, {Resource: 3, Soft: service.RlimInfinity, Hard: service.RlimInfinity},
				{Resource: 4}, {Resource: 7, Soft: 256, Hard: 1024}, {Resource: 9, Soft: 64 << 20, Hard: 64 << 20}, {Resource: 15, Soft: 1000, Hard: 1000}},
			Nice: new(-5), IOPrio: &service.IOPrio{Class: 2, Level: 7}, OOMScoreAdj: new(-500), CPUs: []int{0, 1, 2, 6},
			Cred: &service.Cred{User: "alice", UID: 1000, GID: 1000, Groups: []uint32{4, 50, 1000}},
			Env: []string{"A=from file", "B=own", "HOME=/srv", "LANG=C.UTF-8", "LOGNAME=alice",
				"PATH=/usr/local/bin:/usr/bin:/bin", "SHELL=/bin/sh", "USER=alice"},
		},
		Limits: limit.Limits{Instances: 40, Rate: limit.Rate{N: 256, Per: time.Minute}, Burst: 20,
			RatePerSource: limit.Rate{N: 60, Per: time.Hour}, PrefixV4: 24, PrefixV6: 56},
		Overflow: service.OverflowQueue, OnReload: service.ReloadEnd, OnStop: service.StopKill,
		Origin: service.Place{File: "t.toml", Line: 2},
		ListenOrigin: []service.Place{{File: "t.toml", Line: 5, Col: 11}, {File: "t.toml", Line: 5, Col: 28}, {File: "t.toml", Line: 5, Col: 50},
			{File: "t.toml", Line: 5, Col: 50}, {File: "t.toml", Line: 5, Col: 60}, {File: "t.toml", Line: 5, Col: 86}},
	}
	var rules []string
	for p, v := range got.Access.All() {
		rules = append(rules, fmt.Sprint(p, " ", v))
	}
	if want := []string{"10.0.0.0/8 allow", "192.0.2.0/24 allow", "192.0.2.66/32 deny"}; !slices.Equal(rules, want) {
		t.Errorf("access %v, want %v", rules, want)
	}
	got.Access = nil
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("row differs (-want +got):\n%s", d)
	}
}

// plainSocket are the options of a row that says nothing of them.
var plainSocket = service.Socket{TOS: -1, Mode: 0o666, UID: -1, GID: -1, DirectoryMode: 0o755}

func TestBareRow(t *testing.T) {
	rows := must(t, "[service.\"tcpmux/+Date\"]\nexec = \"/bin/date\"\nuser = \"root\"\n", asRoot())
	if got := slices.Sorted(maps.Keys(rows)); !slices.Equal(got, []string{"tcpmux", "tcpmux/+Date"}) {
		t.Fatalf("rows %q", got)
	}
	d := rows["tcpmux/+Date"]
	if !d.Mux || !d.Plus || d.Name != "date" || len(d.Listen) != 0 || d.Access != nil {
		t.Errorf("mux row %+v", d)
	}
	want := &service.Exec{Path: "/bin/date", Argv: []string{"/bin/date"}, Dir: "/", Umask: 0o22, Stderr: service.StdioLog,
		Cred: &service.Cred{User: "root", Groups: []uint32{0}},
		Env: []string{"HOME=/root", "LOGNAME=root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"SHELL=/bin/bash", "USER=root"}}
	if diff := cmp.Diff(want, d.Exec); diff != "" {
		t.Errorf("exec (-want +got):\n%s", diff)
	}
	if want := (limit.Limits{Instances: 256, InstancesPerSource: 64, PrefixV4: 32, PrefixV6: 64}); d.Limits != want {
		t.Errorf("limits %+v", d.Limits)
	}
	m := rows["tcpmux"]
	if want := (limit.Limits{Instances: 4096, InstancesPerSource: 256, PrefixV4: 32, PrefixV6: 64}); m.Limits != want {
		t.Errorf("limits of the multiplexer %+v", m.Limits)
	}
	if m.Builtin != service.BuiltinTCPMUX || m.Timeout != 10*time.Second || m.Exec != nil || m.Name != "tcpmux" || m.Socket != plainSocket {
		t.Errorf("implied multiplexer %+v", m)
	}
	if got := fmt.Sprint(m.Listen); got != "[0.0.0.0:1 [::]:1]" {
		t.Errorf("it listens on %s", got)
	}
}

// TestDefaults: access, limits and env are taken key by key, all else whole;
// what means nothing for a row is not taken.
func TestDefaults(t *testing.T) {
	rows := must(t, `
[defaults]
user = "nobody"
env = { A = "1", B = "2" }
keepalive = { idle = "1h" }
timeout = "3s"
listen = "8000"
limits = { instances = 7, rate = "10/s", overflow = "queue", burst = 5 }
access.deny = ["192.0.2.0/24"]
[service.own]
exec = "/bin/a"
listen = "9000"
env = { B = "own" }
keepalive = true
limits = { rate = "0" }
access.allow = ["192.0.2.1"]
[service.takes]
exec = "/bin/a"
[service."tcpmux/m"]
exec = "/bin/a"
user = "alice"
[service.tcpmux]
builtin = "tcpmux"
listen = "9001"
`, asRoot())
	own, takes, mux, plexer := rows["own"], rows["takes"], rows["tcpmux/m"], rows["tcpmux"]
	if got := own.Exec.Env[:2]; !slices.Equal(got, []string{"A=1", "B=own"}) {
		t.Errorf("env %q", got)
	}
	if own.Socket.Keepalive != (service.Keepalive{On: true}) || takes.Socket.Keepalive.Idle != time.Hour {
		t.Errorf("keepalive %+v, %+v", own.Socket.Keepalive, takes.Socket.Keepalive)
	}
	if own.Limits.Rate != (limit.Rate{}) || own.Limits.Burst != 0 || own.Limits.Instances != 7 || own.Overflow != service.OverflowQueue {
		t.Errorf("limits %+v %v", own.Limits, own.Overflow)
	}
	if v, p := own.Access.Check(netip.MustParseAddr("192.0.2.9")); p.String() != "192.0.2.0/24" {
		t.Errorf("deny of [defaults] was not taken: %v %v", v, p)
	}
	if mux.Overflow != service.OverflowQueue || plexer.Overflow != service.OverflowRefuse || mux.Timeout != 0 || plexer.Timeout != 3*time.Second {
		t.Errorf("taken where it means nothing: %+v, %+v", mux, plexer)
	}
	if got := takes.Listen[0].Addr.Port(); got != 8000 {
		t.Errorf("port %d", got)
	}
	if mux.Exec.Cred.User != "alice" || takes.Exec.Cred.User != "nobody" {
		t.Error("users")
	}
}

func TestImplied(t *testing.T) {
	row := func(id, more string) string {
		return fmt.Sprintf("[service.%q]\nexec = \"/bin/a\"\nuser = \"root\"\n%s\n", id, more)
	}
	for _, tt := range []struct {
		name, text string
		want       []string
		warn       string
	}{
		{"implied", row("tcpmux/a", ""), []string{"tcpmux", "tcpmux/a"}, ""},
		{"no mux row", row("ftp", ""), []string{"ftp"}, ""},
		{"disabled mux row", row("tcpmux/a", "enabled = false"), nil, "t.toml:1:1: every row is disabled, so nothing is served"},
		{"another", row("tcpmux/a", "") + "[service.m]\nbuiltin = \"tcpmux\"\nlisten = \"5\"\n", []string{"m", "tcpmux/a"}, ""},
		{"disabled multiplexer", row("tcpmux/a", "") + "[service.m]\nbuiltin = \"tcpmux\"\nenabled = false\n", []string{"tcpmux/a"}, "cannot be reached"},
		{"one of two disabled", row("tcpmux/a", "") + "[service.m]\nbuiltin = \"tcpmux\"\nenabled = false\n[service.n]\nbuiltin = \"tcpmux\"\n", []string{"n", "tcpmux/a"}, ""},
		{"all off but one", "[defaults]\nenabled = false\n" + row("tcpmux/a", "enabled = true"), []string{"tcpmux", "tcpmux/a"}, ""},
		{"same name twice, one off", row("tcpmux/a", "") + row("tcpmux/+A", "enabled = false"), []string{"tcpmux", "tcpmux/a"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, warnings, err := compile(t, tt.text, asRoot())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range table.Services {
				got = append(got, s.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("rows %q, want %q", got, tt.want)
			}
			if all := fmt.Sprint(warnings); (tt.warn == "") != (len(warnings) == 0) || !strings.Contains(all, tt.warn) {
				t.Errorf("warnings %v", all)
			}
		})
	}
}

// TestVanished: a user that has gone is an error for a new table, and only a
// refusing row for one that runs already; it is never the daemon's identity.
func TestVanished(t *testing.T) {
	for _, key := range []string{`user = "gone"`, `user = "slow"`, "user = \"alice\"\ngroup = \"gone\"", "user = \"alice\"\ngroups = [\"gone\"]"} {
		text := "[service.ftp]\nexec = \"/bin/a\"\n" + key + "\n"
		if _, _, err := compile(t, text, asRoot()); err == nil {
			t.Errorf("%s: no error", key)
		}
		o := asRoot()
		o.VanishedUsers = true
		table, warnings, err := compile(t, text, o)
		if err != nil || len(warnings) != 1 {
			t.Fatalf("%s: %v, %v", key, warnings, err)
		}
		s := table.Services[0]
		if s.Refuse == "" || s.Exec.Cred == nil || strings.Contains(key, "user = \"gone") && s.Exec.Cred.UID == 0 {
			t.Errorf("%s: refuse %q, cred %+v", key, s.Refuse, s.Exec.Cred)
		}
	}
}

func TestOrdinaryUser(t *testing.T) {
	rows := must(t, "[service.x]\nexec = \"/bin/a\"\nlisten = \"1024\"\n[service.y]\nexec = \"/bin/a\"\nlisten = \"1025\"\nuser = \"1000\"\ngroup = \"alice\"\n", asAlice())
	for _, s := range rows {
		if s.Exec.Cred != nil {
			t.Errorf("%s: cred %+v", s.ID, s.Exec.Cred)
		}
		if !slices.Contains(s.Exec.Env, "HOME=/home/alice") {
			t.Errorf("%s: env %q", s.ID, s.Exec.Env)
		}
	}
	o := asAlice()
	o.UnprivilegedPort = 0
	must(t, "[service.ftp]\nexec = \"/bin/a\"\n", o)
	o = asAlice().AsRoot()
	must(t, "[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"\nmark = 3\n", o)
}

// TestEqualTables: compiling twice gives equal rows, and a File is not changed
// by it.
func TestEqualTables(t *testing.T) {
	text, err := os.ReadFile("testdata/rows.good.toml")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := Parse("t.toml", string(text))
	g, _ := Parse("t.toml", string(text))
	a, _, err := Compile(f, asRoot())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f, g) {
		t.Error("Compile changed the File")
	}
	b, _, _ := Compile(f, asRoot())
	if len(a.Services) < 5 || len(a.Services) != len(b.Services) {
		t.Fatalf("%d and %d rows", len(a.Services), len(b.Services))
	}
	for i := range a.Services {
		if !a.Services[i].Equal(b.Services[i]) {
			t.Errorf("row %s differs from itself", a.Services[i].ID)
		}
	}
}

func TestErrorIsMultierror(t *testing.T) {
	_, _, err := compile(t, "a = 1\nb = 2\n", asRoot())
	m, ok := err.(*multierror.Error)
	if !ok || len(m.Errors) != 2 {
		t.Fatalf("%T %v", err, err)
	}
	var p *Problem
	if !errors.As(err, &p) || p.Line != 1 || p.Key != "a" {
		t.Errorf("%+v", p)
	}
	if want := m.Errors[0].Error() + "\n" + m.Errors[1].Error(); err.Error() != want {
		t.Errorf("%q", err)
	}
	if _, _, err := compile(t, "[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"", asRoot()); err != nil {
		t.Errorf("nil is not nil: %#v", err)
	}
}

// write makes files in a new directory and returns the path of the first.
func write(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		p := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, files[0])
}

func TestNearest(t *testing.T) {
	words := names(serviceKeys)
	for in, want := range map[string]string{
		"usr": "user", "USER": "user", "grops": "groups", "exce": "exec", "keep_alive": "keepalive",
		"bind_device": "bind_to_device", "xyzzy": "", "": "", "q": "", "no_delay": "nodelay", strings.Repeat("x", 1<<20): "",
	} {
		if got := nearest(in, words); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", in, got, want)
		}
	}
	if d := distance("kitten", "sitting"); d != 3 {
		t.Errorf("distance %d", d)
	}
}
