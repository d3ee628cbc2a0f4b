// The four file formats. A line that is none is passed over, as the C library
// does; so are the "+" and "-" lines of nsswitch's compat.

package account

import (
	"strconv"
	"strings"
)

// parsePasswd reads passwd(5): name:password:uid:gid:gecos:home:shell.
func parsePasswd(text string, yield func(string, User)) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 7 || skip(f[0]) {
			continue
		}
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if !ok1 || !ok2 {
			continue
		}
		u := User{Name: f[0], UID: uid, GID: gid, Home: f[5], Shell: f[6]}
		if u.Home == "" {
			u.Home = "/"
		}
		if u.Shell == "" {
			u.Shell = "/bin/sh" // passwd(5): an empty field means this
		}
		yield(u.Name, u)
	}
}

// parseGroup reads group(5): name:password:gid:member,member.
func parseGroup(text string, yield func(string, group)) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 4 || skip(f[0]) {
			continue
		}
		gid, ok := number(f[2])
		if !ok {
			continue
		}
		g := group{gid: gid}
		for m := range strings.SplitSeq(f[3], ",") {
			if m = strings.TrimSpace(m); m != "" {
				g.members = append(g.members, m)
			}
		}
		yield(f[0], g)
	}
}

// parseServices reads what services(5) has of a protocol: name port/protocol
// alias ... # comment.
func parseServices(protocol string) parser[uint16] {
	return func(text string, yield func(string, uint16)) {
		servicesOf(protocol, text, yield)
	}
}

func servicesOf(protocol, text string, yield func(string, uint16)) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		num, proto, _ := strings.Cut(f[1], "/")
		port, err := strconv.ParseUint(num, 10, 16)
		if err != nil || port == 0 || proto != protocol {
			continue
		}
		yield(f[0], uint16(port))
		for _, alias := range f[2:] {
			yield(alias, uint16(port))
		}
	}
}

// parseRPC reads rpc(5): name number alias ... # comment.
func parseRPC(text string, yield func(string, uint32)) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil {
			continue
		}
		yield(f[0], uint32(n))
		for _, alias := range f[2:] {
			yield(alias, uint32(n))
		}
	}
}

// skip reports whether an entry's name is none.
func skip(name string) bool {
	return name == "" || name[0] == '+' || name[0] == '-' || name[0] == '#'
}
