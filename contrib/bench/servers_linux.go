package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// This file is the table of what is compared: how each server is configured
// and started so that all of them do the same work, every child as root, and
// no limit of theirs is in the way.

const (
	addr       = "127.0.0.1"
	muxPort    = 1 // inetutils-inetd has it from services(5) only; the namespace is ours
	directPort = 2
	muxName    = "tiny"
)

// A scenario is one kind of work.
type scenario struct {
	name     string
	title    string
	mux      bool
	child    string // program in the scratch directory
	inFlight []int
}

var scenarios = []scenario{
	{"direct", "own port, static child without libc", false, "tiny", []int{1, 8, 64}},
	{"dynamic", "own port, ordinary dynamic child", false, "dynamic", []int{1, 8}},
	{"tcpmux", "tcpmux/+" + muxName + ", static child without libc", true, "tiny", []int{1, 8, 64}},
}

func (sc scenario) port() int {
	if sc.mux {
		return muxPort
	}
	return directPort
}

// A server is one column. command writes what configuration it needs into
// dir and returns the command line; path is its program, "" if there is none.
type server struct {
	name    string
	pkg     string // Debian package; "" for our own
	binary  string // inside the package
	direct  bool
	mux     bool
	ack     string // the positive answer of RFC 1078 as it sends it
	forks   bool   // has no foreground mode and leaves its pid in dir/pid
	command func(path, dir, child string, sc scenario) ([]string, error)
}

func (s *server) runs(sc scenario) bool {
	return sc.mux && s.mux || !sc.mux && s.direct
}

const ack = "+Go\r\n"

var servers = []*server{
	{name: ceilingName, direct: true, mux: true, ack: ack, command: ceilingCommand},
	{name: "tcpmuxd", direct: true, mux: true, ack: ack, command: tcpmuxdCommand},
	{name: "xinetd", pkg: "xinetd", binary: "usr/sbin/xinetd", direct: true, mux: true,
		ack:     ack + "\x00", // it sends the terminator of the C string too
		command: xinetdCommand},
	{name: "openbsd-inetd", pkg: "openbsd-inetd", binary: "usr/sbin/inetd", direct: true, command: openbsdCommand},
	// On a port of its own it serves about one connection a second when
	// they come one by one: it sleeps after each select(2) that SIGCHLD interrupts.
	{name: "inetutils-inetd", pkg: "inetutils-inetd", binary: "usr/sbin/inetutils-inetd", mux: true, ack: ack,
		forks: true, command: inetutilsCommand},
}

// ceilingCommand is c/ceiling.c.
func ceilingCommand(path, _, child string, sc scenario) ([]string, error) {
	argv := []string{path, addr, fmt.Sprint(sc.port()), child}
	if sc.mux {
		argv = append(argv, muxName)
	}
	return argv, nil
}

// tcpmuxdCommand leaves the log on: a line for every instance that starts and ends.
func tcpmuxdCommand(path, dir, child string, sc scenario) ([]string, error) {
	const unlimited = "limits = { instances = 0, instances_per_source = 0 }\n"
	var b strings.Builder
	if sc.mux {
		fmt.Fprintf(&b, "[service.tcpmux]\nbuiltin = \"tcpmux\"\nlisten = [\"%s:%d\"]\n%s\n", addr, muxPort, unlimited)
		fmt.Fprintf(&b, "[service.\"tcpmux/+%s\"]\n", muxName)
	} else {
		fmt.Fprintf(&b, "[service.direct]\nlisten = [\"%s:%d\"]\n", addr, directPort)
	}
	fmt.Fprintf(&b, "user = \"root\"\nexec = [%q]\n%s", child, unlimited)
	file, err := write(dir, "tcpmuxd.toml", b.String())
	return []string{path, "-c", file}, err
}

func xinetdCommand(path, dir, child string, sc scenario) ([]string, error) {
	const common = `	socket_type = stream
	protocol = tcp
	wait = no
	user = root
`
	conf := "defaults\n{\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n\tcps = 1000000000 1\n}\n"
	own := fmt.Sprintf("\tserver = %s\n\tflags = NOLIBWRAP\n", child)
	bind := fmt.Sprintf("\tport = %d\n\tbind = %s\n\tflags = NOLIBWRAP\n", sc.port(), addr)
	if sc.mux {
		conf += "service tcpmux\n{\n\ttype = INTERNAL UNLISTED\n" + common + bind + "}\n" +
			"service " + muxName + "\n{\n\ttype = TCPMUXPLUS UNLISTED\n" + common + own + "}\n"
	} else {
		conf += "service direct\n{\n\ttype = UNLISTED\n" + common + bind + fmt.Sprintf("\tserver = %s\n}\n", child)
	}
	file, err := write(dir, "xinetd.conf", conf)
	return []string{path, "-dontfork", "-f", file, "-pidfile", filepath.Join(dir, "pid"), "-filelog", filepath.Join(dir, "xinetd.log")}, err
}

// openbsdCommand: -R 0 would not mean unlimited but 256 a minute.
func openbsdCommand(path, dir, child string, sc scenario) ([]string, error) {
	file, err := write(dir, "inetd.conf", fmt.Sprintf("%s:%d stream tcp nowait.100000000 root %s %s\n",
		addr, sc.port(), child, filepath.Base(child)))
	return []string{path, "-i", "-q", "4096", "-R", "100000000", file}, err
}

// inetutilsCommand names the multiplexer explicitly: an implied one would
// listen on all addresses of both families.
func inetutilsCommand(path, dir, child string, _ scenario) ([]string, error) {
	file, err := write(dir, "inetd.conf", fmt.Sprintf("tcpmux stream tcp nowait root internal\ntcpmux/+%s stream tcp nowait root %s %s\n",
		muxName, child, filepath.Base(child)))
	return []string{path, "-R", "1000000000", "--pidfile=" + filepath.Join(dir, "pid"), file}, err
}

func write(dir, name, text string) (string, error) {
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("writing a configuration: %w", err)
	}
	return file, nil
}
