package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// This file is the table of what is compared: how each server is configured
// and started so that all of them do the same work, every child as root, and
// no limit of theirs is in the way.

// A server is one column. command writes what configuration it needs into the
// task's directory and returns the command line.
type server struct {
	name    string
	pkg     string // Debian package; "" for our own
	binary  string // inside the package
	does    []work
	ack     string // the positive answer of RFC 1078 as it sends it
	forks   bool   // has no foreground mode and leaves its pid in dir/pid
	env     string // besides PATH
	command func(path string, t task) ([]string, error)
	defend  func(path string, t task) ([]string, error) // the same where it is attacked
}

// A task is what one start of a server is for.
type task struct {
	work
	variant
	scenario string
	dir      string // for configurations and logs
	scratch  string // with the programs of c/
	child    string // path of the program
	port     int    // where the load goes
	changed  bool   // the row in the middle of the table is another than before
}

// runs says whether a scenario is for this server.
func (s *server) runs(sc scenario) bool {
	return slices.Contains(s.does, sc.work) && (sc.only == nil || slices.Contains(sc.only, s.name))
}

const ack = "+Go\r\n"

var servers = []*server{
	{name: ceilingName, does: []work{spawn, mux, daytime, echo, discard, chargen, udpEcho, forward}, ack: ack, command: ceilingCommand},
	{name: oursName, does: []work{spawn, mux, daytime, echo, discard, chargen, udpEcho, forward}, ack: ack, command: tcpmuxdCommand, defend: attackedTcpmuxd},
	{name: "xinetd", pkg: "xinetd", binary: "usr/sbin/xinetd",
		does:    []work{spawn, mux, daytime, echo, discard, chargen, udpEcho, forward},
		ack:     ack + "\x00", // it sends the terminator of the C string too
		command: xinetdCommand, defend: attackedXinetd},
	// It answers no UDP peer of 127.0.0.0/8.
	{name: "openbsd-inetd", pkg: "openbsd-inetd", binary: "usr/sbin/inetd",
		does: []work{spawn, daytime, echo, discard, chargen}, command: openbsdCommand},
	// On a port of its own it serves about one connection a second when
	// they come one by one: it sleeps after each select(2) that SIGCHLD interrupts.
	{name: "inetutils-inetd", pkg: "inetutils-inetd", binary: "usr/sbin/inetutils-inetd",
		does: []work{mux, daytime, echo, discard, chargen}, ack: ack, forks: true, command: inetutilsCommand, defend: attackedInetutils},
	{name: "tcpserver", pkg: "ucspi-tcp", binary: "usr/bin/tcpserver", does: []work{spawn}, command: tcpserverCommand},
	{name: "rlinetd", pkg: "rlinetd", binary: "usr/sbin/rlinetd", does: []work{spawn}, command: rlinetdCommand},
	{name: "socket-activate", pkg: "systemd", binary: "usr/bin/systemd-socket-activate", does: []work{spawn},
		env: "SYSTEMD_LOG_LEVEL=err", command: activateCommand}, // else several lines a connection
}

// ceilingCommand is one of c/ceiling.c, builtin.c, udpecho.c and relay.c.
func ceilingCommand(_ string, t task) ([]string, error) {
	port := fmt.Sprint(t.port)
	program := func(name string, args ...string) ([]string, error) {
		return append([]string{filepath.Join(t.scratch, name), addr, port}, args...), nil
	}
	switch t.work {
	case spawn:
		return program("ceiling", t.child)
	case mux:
		return program("ceiling", t.child, muxName)
	case udpEcho:
		return program("udpecho")
	case forward:
		return program("relay", fmt.Sprint(targetPort))
	}
	return program("builtin", string(t.work))
}

// tcpmuxdCommand has access and all limits on, so high that none refuses, and
// its log: a line for every instance that starts and ends.
func tcpmuxdCommand(path string, t task) ([]string, error) {
	var b strings.Builder
	if t.level != "" {
		fmt.Fprintf(&b, "[server]\nlog_level = %q\n\n", t.level)
	}
	b.WriteString(`[defaults]
access.allow = ["127.0.0.0/8"]
limits = { instances = 1000000, instances_per_source = 1000000, rate = "1000000000/s", rate_per_source = "1000000000/s" }

`)
	listen := func(id string, port int) { fmt.Fprintf(&b, "[service.%s]\nlisten = \"%s:%d\"\n", id, addr, port) }
	program := func(args ...string) {
		if !strings.Contains(t.keys, "user =") {
			b.WriteString("user = \"root\"\n")
		}
		fmt.Fprintf(&b, "exec = [\"%s\"]\n%s\n", strings.Join(append([]string{t.child}, args...), `", "`), t.keys)
	}
	switch t.work {
	case spawn:
		if t.rows == 0 {
			listen("direct", t.port)
			program()
		}
		for i := range t.rows {
			listen(fmt.Sprintf("row%d", i), firstRow+i)
			program(t.argument(i)...)
		}
	case mux:
		listen("tcpmux", t.port)
		fmt.Fprintf(&b, "builtin = \"tcpmux\"\ntimeout = \"1h\"\n\n[service.\"tcpmux/+%s\"]\n", muxName)
		program()
	case forward:
		listen("forward", t.port)
		fmt.Fprintf(&b, "forward = \"%s:%d\"\n", addr, targetPort)
	case udpEcho:
		listen("echo", t.port)
		b.WriteString("builtin = \"echo\"\nprotocol = \"udp\"\n")
	default:
		listen(string(t.work), t.port)
		fmt.Fprintf(&b, "builtin = %q\n", t.work)
	}
	file, err := t.write("tcpmuxd.toml", b.String())
	return []string{path, "-c", file}, err
}

// argument is what makes the row in the middle of the table another one.
func (t task) argument(row int) []string {
	if t.changed && row == t.rows/2 {
		return []string{"changed"}
	}
	return nil
}

func xinetdCommand(path string, t task) ([]string, error) {
	var b strings.Builder
	b.WriteString("defaults\n{\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n\tcps = 1000000000 1\n}\n")
	service := func(name string, keys ...string) {
		common := []string{"socket_type = stream", "protocol = tcp", "wait = no", "user = root", "flags = NOLIBWRAP"}
		if t.work == udpEcho {
			common = []string{"socket_type = dgram", "protocol = udp", "wait = yes", "user = root", "flags = NOLIBWRAP"}
		}
		fmt.Fprintf(&b, "service %s\n{\n\t%s\n}\n", name, strings.Join(append(common, keys...), "\n\t"))
	}
	listen := func(port int) string { return fmt.Sprintf("port = %d\n\tbind = %s", port, addr) }
	switch t.work {
	case spawn:
		if t.rows == 0 {
			service("direct", "type = UNLISTED", listen(t.port), "server = "+t.child)
		}
		for i := range t.rows {
			keys := []string{"type = UNLISTED", listen(firstRow + i), "server = " + t.child}
			if a := t.argument(i); a != nil {
				keys = append(keys, "server_args = "+a[0])
			}
			service(fmt.Sprintf("row%d", i), keys...)
		}
	case mux:
		service("tcpmux", "type = INTERNAL UNLISTED", listen(t.port))
		service(muxName, "type = TCPMUXPLUS UNLISTED", "server = "+t.child)
	case forward:
		service("forward", "type = UNLISTED", listen(t.port), fmt.Sprintf("redirect = %s %d", addr, targetPort))
	case udpEcho:
		service("echo", "type = INTERNAL", "id = echo-dgram", "bind = "+addr)
	default:
		service(string(t.work), "type = INTERNAL", fmt.Sprintf("id = %s-stream", t.work), "bind = "+addr)
	}
	file, err := t.write("xinetd.conf", b.String())
	return []string{path, "-dontfork", "-f", file, "-pidfile", filepath.Join(t.dir, "pid"), "-filelog", filepath.Join(t.dir, "xinetd.log")}, err
}

// openbsdCommand: -R 0 would not mean unlimited but 256 a minute.
func openbsdCommand(path string, t task) ([]string, error) {
	const nowait = "stream tcp nowait.100000000 root"
	var b strings.Builder
	line := func(port int, args ...string) {
		fmt.Fprintf(&b, "%s:%d %s %s %s %s\n", addr, port, nowait, t.child, filepath.Base(t.child), strings.Join(args, " "))
	}
	switch {
	case t.work != spawn:
		fmt.Fprintf(&b, "%s:%s %s internal\n", addr, t.work, nowait)
	case t.rows == 0:
		line(t.port)
	}
	for i := range t.rows {
		line(firstRow+i, t.argument(i)...)
	}
	file, err := t.write("inetd.conf", b.String())
	return []string{path, "-i", "-q", "4096", "-R", "100000000", file}, err
}

// inetutilsCommand names the multiplexer explicitly: an implied one would
// listen on all addresses of both families.
func inetutilsCommand(path string, t task) ([]string, error) {
	conf := fmt.Sprintf("%s stream tcp nowait root internal\n", t.work)
	if t.work == mux {
		conf = fmt.Sprintf("tcpmux stream tcp nowait root internal\ntcpmux/+%s stream tcp nowait root %s %s\n",
			muxName, t.child, filepath.Base(t.child))
	}
	file, err := t.write("inetd.conf", conf)
	return []string{path, "-R", "1000000000", "--pidfile=" + filepath.Join(t.dir, "pid"), file}, err
}

// tcpserverCommand: no name of the peer or of this host is looked up.
func tcpserverCommand(path string, t task) ([]string, error) {
	return []string{path, "-H", "-R", "-l", "localhost", "-c", "100000", "-b", "4096", addr, fmt.Sprint(t.port), t.child}, nil
}

// rlinetdCommand has it stay in the foreground (-d), which makes it log its
// start and nothing of connections; its parser is beside it in the package.
func rlinetdCommand(path string, t task) ([]string, error) {
	parser, err := filepath.Glob(filepath.Join(filepath.Dir(path), "..", "lib", "*", "rlinetd", "libparse.so"))
	if err != nil || len(parser) == 0 {
		return nil, fmt.Errorf("rlinetd's parser is not in its package")
	}
	file, err := t.write("rlinetd.conf", fmt.Sprintf("service \"direct\" {\n\tprotocol tcp;\n\tport %d;\n\tinterface %s;\n\tbacklog 4096;\n"+
		"\tuser \"root\";\n\tinstances 100000;\n\texec \"%s\";\n}\n", t.port, addr, t.child))
	return []string{path, "-d", "-f", file, "-p", parser[0]}, err
}

func activateCommand(path string, t task) ([]string, error) {
	return []string{path, fmt.Sprintf("--listen=%s:%d", addr, t.port), "--accept", "--inetd", t.child}, nil
}

func (t task) write(name, text string) (string, error) {
	file := filepath.Join(t.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("writing a configuration: %w", err)
	}
	return file, nil
}
