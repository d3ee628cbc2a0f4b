package main

import "context"

// This file is the table of what is measured.

// work is what a server is asked to do; each kind has a port of its own.
type work string

const (
	spawn   work = "spawn"   // a child for each connection
	mux     work = "mux"     // the same by name, over TCPMUX
	daytime work = "daytime" // these are the built-in services
	echo    work = "echo"
	discard work = "discard"
	chargen work = "chargen"
	udpEcho work = "udpecho"
	forward work = "forward" // a relay to a chargen of ours
)

const (
	addr       = "127.0.0.1"
	targetPort = 4    // of the relays
	firstRow   = 4000 // of a table with many rows
	muxName    = "tiny"
)

// ports are the well-known ones where there are any: the inetds have them from
// services(5) only, and the namespace is ours.
var ports = map[work]int{mux: 1, spawn: 2, forward: 3, echo: 7, udpEcho: 7, discard: 9, daytime: 13, chargen: 19}

// A generator is a program of c/ that loads a server and what its line of
// figures counts: scale of that are one unit.
type generator struct {
	program string
	unit    string
	scale   float64
	first   int // so many prove that the server works
	last    string
}

var (
	connections = generator{program: "load", unit: "conn", scale: 1, first: 1}
	datagrams   = generator{program: "udp", unit: "packet", scale: 1, first: 1}
)

// stream is the generator of bytes of one kind.
func stream(kind work) generator {
	return generator{program: "stream", unit: "MB", scale: 1e6, first: 1 << 16, last: string(kind)}
}

// A scenario is one kind of work under one or several conditions.
type scenario struct {
	name     string
	title    string
	work     work
	load     generator
	child    string // program in the scratch directory
	inFlight []int  // connections, or datagrams, at a time; none: nothing is sampled
	variants []variant
	only     []string // servers; none: all that do this work
	quick    bool     // in `make bench`, too
	attack   bool     // in `make bench-attack` instead
	more     func(context.Context, *running) ([]Figure, error)
}

// A variant is one condition of a scenario. The first one of a scenario is
// what the others are compared with.
type variant struct {
	name        string
	rows        int    // so many further rows in the table, the last of which is used
	descriptors int    // so many more are open in the server
	pending     int    // so many silent peers on the multiplexer
	level       string // of tcpmuxd's log; "" is the default
	keys        string // of tcpmuxd's row

	// Of a siege:
	sources int  // that it comes from
	drips   bool // it sends a byte now and then
	shipped bool // the server's limits are its defaults
	ours    bool // nobody else has it: they cannot tell sources apart, and it takes long
}

var scenarios = append([]scenario{
	{name: "direct", title: "own port, static child without libc",
		work: spawn, load: connections, child: "tiny", inFlight: []int{1, 8, 64}, quick: true},
	{name: "dynamic", title: "own port, ordinary dynamic child",
		work: spawn, load: connections, child: "dynamic", inFlight: []int{1, 8}, quick: true},
	{name: "tcpmux", title: "tcpmux/+" + muxName + ", static child without libc",
		work: mux, load: connections, child: "tiny", inFlight: []int{1, 8, 64}, quick: true},
	{name: "daytime", title: "built-in daytime over TCP, whole connections",
		work: daytime, load: connections, inFlight: []int{1, 8, 64}, quick: true},

	{name: "echo", title: "built-in echo over TCP, bytes", work: echo, load: stream(echo), inFlight: []int{1, 8}},
	{name: "discard", title: "built-in discard over TCP, bytes", work: discard, load: stream(discard), inFlight: []int{1, 8}},
	{name: "chargen", title: "built-in chargen over TCP, bytes", work: chargen, load: stream(chargen), inFlight: []int{1, 8}},
	{name: "udpecho", title: "built-in echo over UDP, datagrams of 64 bytes, by window",
		work: udpEcho, load: datagrams, inFlight: []int{1, 32}},
	{name: "forward", title: "relay, bytes of a chargen behind it", work: forward, load: stream(chargen), inFlight: []int{1, 8}},

	{name: "descriptors", title: "direct, by descriptors open in the server besides",
		work: spawn, load: connections, child: "tiny", inFlight: []int{8}, only: []string{ceilingName, oursName, "tcpserver"},
		variants: []variant{{name: "0"}, {name: "2000", descriptors: 2000}, {name: "15000", descriptors: 15000}}},
	{name: "pending", title: "tcpmux, by silent peers that have not said a name",
		work: mux, load: connections, child: "tiny", inFlight: []int{8}, only: []string{oursName},
		variants: []variant{{name: "0"}, {name: "9000", pending: 9000}}},
	{name: "rows", title: "direct, by rows in the table",
		work: spawn, load: connections, child: "tiny", inFlight: []int{8}, only: []string{oursName, "xinetd", "openbsd-inetd"},
		variants: []variant{{name: "10", rows: 10}, {name: "1000", rows: 1000}, {name: "5000", rows: 5000}}, more: reloads},
	{name: "options", title: "direct, by set-up of the child",
		work: spawn, load: connections, child: "tiny", inFlight: []int{8}, only: []string{oursName}, variants: setUps},
	{name: "log", title: "direct, by log level: at info each connection has a line for its start and one for its end",
		work: spawn, load: connections, child: "tiny", inFlight: []int{8}, only: []string{oursName},
		variants: []variant{{name: "warn", level: "warn"}, {name: "info", level: "info"}}},

	{name: "children", title: "memory of live children, of the server's own process",
		work: spawn, load: connections, child: "stay", only: []string{oursName, "tcpserver", "xinetd", "openbsd-inetd", "rlinetd"}, more: perChild},
	{name: "negotiations", title: "memory of pending negotiations, of the server's own process",
		work: mux, load: connections, child: "tiny", only: []string{oursName}, more: perNegotiation,
		variants: []variant{{name: silent}, {name: oneByte}}},
}, attacks...)

const (
	credentials = "user = \"nobody\"\ngroup = \"nogroup\"\ngroups = [\"adm\", \"1234\"]\n"
	limits      = "rlimits = { nofile = 256, nproc = 4096, core = 0, as = \"512M\" }\n"
)

// setUps are compared with a bare spawn, which has what every spawn has: setsid,
// umask 022, the environment, its stderr on the log.
var setUps = []variant{
	{name: bare},
	{name: "user, group, groups", keys: credentials},
	{name: "rlimits", keys: limits},
	{name: "umask", keys: "umask = \"027\"\n"},
	{name: "nice", keys: "nice = 5\n"},
	{name: "cpus", keys: "cpus = \"0-1\"\n"},
	{name: "ioprio", keys: "ioprio = \"best-effort:4\"\n"},
	{name: "oom_score_adj", keys: "oom_score_adj = 500\n"},
	{name: "cwd", keys: "cwd = \"/usr\"\n"},
	{name: "chroot", keys: "chroot = \"/\"\n"},
	{name: "stderr to the socket", keys: "stderr = \"socket\"\n"},
	{name: "stderr to /dev/null", keys: "stderr = \"null\"\n"},
	{name: together, keys: credentials + limits + "umask = \"027\"\nnice = 5\n"},
}

// conditions are the variants of a scenario, at least one.
func (sc scenario) conditions() []variant {
	if len(sc.variants) == 0 {
		return []variant{{}}
	}
	return sc.variants
}

// port is where the load goes.
func (sc scenario) port(v variant) int {
	if v.rows > 0 {
		return firstRow + v.rows - 1
	}
	return ports[sc.work]
}
