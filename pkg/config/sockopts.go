// The options of a row's sockets, and which of them mean anything for the kinds
// of sockets it has.

package config

import (
	"strconv"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of socket options. The clocks are those of tcp(7) and
// linux/tcp.h: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT.
const (
	maxBacklog    = 1 << 20
	minBuffer     = 1 << 10
	maxBuffer     = 1 << 30
	maxKeepalive  = 32767 * time.Second
	maxKeepcount  = 127
	maxDefer      = time.Hour
	maxDeviceName = 15 // IFNAMSIZ without its NUL
	maxCongestion = 15 // TCP_CA_NAME_MAX without its NUL
	freePriority  = 6  // SO_PRIORITY above it needs a right, socket(7)
)

// What a socket in the file system is unless the row says otherwise: everybody
// may connect, as everybody may connect to a port.
const (
	defaultSocketMode    = 0o666
	defaultDirectoryMode = 0o755
)

func (r *row) socket() service.Socket {
	s := r.text
	o := service.Socket{
		Backlog:     int(r.number("backlog", s.Backlog, 0, 1, maxBacklog)),
		Nodelay:     s.Nodelay.V,
		DeferAccept: r.duration("defer_accept", s.DeferAccept, 0, 0, maxDefer, time.Second),
		ReusePort:   s.Reuseport.V,
		Freebind:    s.Freebind.V,
		Rcvbuf:      int(r.number("rcvbuf", s.Rcvbuf, 0, minBuffer, maxBuffer)),
		Sndbuf:      int(r.number("sndbuf", s.Sndbuf, 0, minBuffer, maxBuffer)),
		Mark:        uint32(r.number("mark", s.Mark, 0, 0, 1<<32-1)),
		TOS:         int(r.number("tos", s.TOS, -1, 0, 252)),
		TTL:         int(r.number("ttl", s.TTL, 0, 1, 255)),
		Priority:    int(r.number("priority", s.Priority, 0, 0, 1<<31-1)),
		Broadcast:   s.Broadcast.V,
		Transparent: s.Transparent.V,
		PassCred:    s.PassCredentials.V,

		Mode:          r.mode("socket_mode", s.SocketMode, defaultSocketMode),
		UID:           -1,
		GID:           -1,
		DirectoryMode: r.mode("directory_mode", s.DirectoryMode, defaultDirectoryMode),
	}
	if o.TOS > 0 && o.TOS&3 != 0 {
		r.errorf("tos", s.TOS.Pos, "the two low bits are the kernel's, for ECN; write %d instead", o.TOS&^3)
	}
	raw := r.c.o.NetAdmin || r.c.o.NetRaw
	if o.Mark != 0 && !raw {
		r.errorf("mark", s.Mark.Pos, "needs root, CAP_NET_ADMIN or CAP_NET_RAW; run tcpmuxd so or take it out")
	}
	if o.Transparent && !raw {
		r.errorf("transparent", s.Transparent.Pos, "needs root, CAP_NET_ADMIN or CAP_NET_RAW; run tcpmuxd so or take it out")
	}
	if o.Priority > freePriority && !r.c.o.NetAdmin {
		r.errorf("priority", s.Priority.Pos, "more than %d needs root or CAP_NET_ADMIN; run tcpmuxd so or write a number from 0 to %d instead", freePriority, freePriority)
	}
	if c := s.Congestion; c.IsSet() && r.plain("congestion", c, maxCongestion, "a name such as \"cubic\"") {
		o.Congestion = c.V
	}
	if d := s.BindToDevice; d.IsSet() && r.plain("bind_to_device", d, maxDeviceName, "an interface's name such as \"eth0\"") {
		if validDevice(d.V) {
			o.BindToDevice = d.V
		} else {
			r.errorf("bind_to_device", d.Pos, "%s is no interface's name; write one such as \"eth0\" instead", clip(d.V))
		}
	}
	if k := &s.Keepalive; k.On {
		o.Keepalive = service.Keepalive{
			On:       true,
			Idle:     r.duration("keepalive.idle", k.Idle, 0, time.Second, maxKeepalive, time.Second),
			Interval: r.duration("keepalive.interval", k.Interval, 0, time.Second, maxKeepalive, time.Second),
			Count:    int(r.number("keepalive.count", k.Count, 0, 1, maxKeepcount)),
		}
	}
	r.owner(&o)
	return o
}

// owner fills in whom a socket in the file system belongs to.
func (r *row) owner(o *service.Socket) {
	s := r.text
	if u := s.SocketUser; u.IsSet() {
		if a, err := r.c.asked.user(r.c.o.Accounts, u.V); err != nil {
			r.vanished("socket_user", u, err, "the name of a user or a number")
		} else if o.UID = int(a.UID); r.c.o.UID != 0 && a.UID != r.c.o.UID {
			r.errorf("socket_user", u.Pos, "only root can give a socket to %s; take it out, or start tcpmuxd as root", clip(u.V))
		}
	}
	if g := s.SocketGroup; g.IsSet() {
		if gid, err := r.c.asked.group(r.c.o.Accounts, g.V); err != nil {
			r.vanished("socket_group", g, err, "the name of a group or a number")
		} else {
			o.GID = int(gid)
		}
	}
}

// mode reads the permissions of a file.
func (r *row) mode(key string, s String, def uint32) uint32 {
	if !s.IsSet() {
		return def
	}
	n, err := strconv.ParseUint(s.V, 8, 32)
	if err != nil || n > 0o777 {
		r.errorf(key, s.Pos, "%s is no mode; write an octal number from \"0000\" to \"0777\" instead", clip(s.V))
		return def
	}
	return uint32(n)
}

// validDevice is the kernel's dev_valid_name.
func validDevice(s string) bool {
	return s != "" && len(s) <= maxDeviceName && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}

// netsOf is the kinds of sockets of the row.
func (r *row) netsOf() (s netset) {
	for _, b := range r.listen {
		s |= 1 << b.Network
	}
	return s
}

// strangers reports options of the row's own that mean nothing for any of its
// sockets, and forgets them all.
func (r *row) strangers() {
	nets := r.netsOf()
	if nets == 0 {
		return // nothing is known of them
	}
	file := false
	for _, b := range r.listen {
		file = file || b.Network.Unix() && b.Path[0] == '/'
	}
	for i := range serviceKeys {
		k := &serviceKeys[i]
		if k.nets == 0 {
			continue
		}
		what := nets.String()
		if nets&k.nets != 0 {
			if file || k.name == "pass_credentials" || k.nets != unixNets {
				continue
			}
			what = "an abstract socket, which is no file"
		}
		pos := written(k.field(r.text))
		if !pos.IsSet() {
			continue
		}
		if !r.inherited[k.name] {
			r.errorf(k.name, pos, "means nothing for %s; take it out", what)
		}
		forget(k.field(r.writable()))
	}
}
