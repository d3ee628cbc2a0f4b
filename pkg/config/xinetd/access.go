// Who may come, and when: only_from, no_access and access_times.
//
// Of the prefixes in both lists the most specific one decides, as xinetd.conf(5)
// says. Names are not looked up, neither hosts nor networks: whoever only a name
// would let in stays out, and a name that would keep somebody out is an error.

package xinetd

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// A rule is an address of one of the lists, or a name that is lost.
type rule struct {
	prefix netip.Prefix // zero: it is a name
	word   config.String
}

// key is what two rules about the same peers have in common.
func (r rule) key() ruleKey {
	if r.prefix.IsValid() {
		return ruleKey{prefix: r.prefix}
	}
	return ruleKey{name: r.word.V}
}

type ruleKey struct {
	prefix netip.Prefix
	name   string
}

type rules = ordered[ruleKey, rule]

// A list is one of the two, if it is there at all.
type list struct {
	pos   config.Pos
	rules rules
}

func (l list) isSet() bool { return l.pos.IsSet() }

// access is both lists as a row has them.
type access struct {
	allow, deny config.List
}

var (
	everyV4  = netip.MustParsePrefix("0.0.0.0/0")
	everyV6  = netip.MustParsePrefix("::/0")
	mappedV4 = netip.MustParsePrefix("::ffff:0:0/96")
)

// access fills in the lists where they are not those of the defaults, which the row
// takes from there.
func (s *svc) access() {
	if s.kind == sensor {
		if d := s.t.defaults; d.isSet("only_from") || d.isSet("no_access") {
			s.out.Access = s.everybody() // it catches whoever comes
		}
		return
	}
	a := s.lists(s.t.defaults)
	if s.isSet("only_from") || s.isSet("no_access") {
		if !equal(a.allow, s.t.access.allow) {
			s.out.Access.Allow = a.allow
		}
		if !equal(a.deny, s.t.access.deny) {
			s.out.Access.Deny = a.deny
		}
		s.out.Access.Pos = s.out.Access.Allow.Pos
		if !s.out.Access.Pos.IsSet() {
			s.out.Access.Pos = s.out.Access.Deny.Pos
		}
	}
	if s.wait && s.kind == program && (a.allow.IsSet() || a.deny.IsSet()) {
		if _, intercepted := s.flags["INTERCEPT"]; !intercepted {
			_, w, _ := s.one("wait")
			s.changed(w, "leaves the peers to the program: the kernel judges them by only_from and no_access for every packet, where xinetd without INTERCEPT judges nobody but the first")
		}
	}
	s.times()
}

// everybody is access for all, whatever the defaults say.
func (s *svc) everybody() config.Access {
	pos := s.name.Pos
	return config.Access{
		Pos:   pos,
		Allow: config.List{V: []config.String{{V: everyV4.String(), Pos: pos}, {V: everyV6.String(), Pos: pos}}, Pos: pos},
		Deny:  config.List{Pos: pos},
	}
}

// nobody lets nobody in, whatever the defaults say: no peer has this address, and an
// empty list is not to be written.
func nobody(pos config.Pos) config.List {
	return config.List{V: []config.String{{V: "0.0.0.0", Pos: pos}}, Pos: pos}
}

func equal(a, b config.List) bool {
	return a.IsSet() == b.IsSet() && slices.EqualFunc(a.V, b.V, func(x, y config.String) bool { return x.V == y.V })
}

// lists makes both lists of the attributes, which begin as those of the defaults;
// base is nil for these themselves.
func (s *scope) lists(base *scope) access {
	from := func(name string) (l list) {
		if base != nil {
			quiet := *base // what is wrong there has been said
			quiet.silent = true
			l = quiet.fold(list{}, name, true)
		}
		return s.fold(l, name, base == nil)
	}
	only, no := from("only_from"), from("no_access")
	a := access{deny: config.List{Pos: no.pos}}
	for _, r := range no.rules.list() {
		if r.prefix.IsValid() {
			a.deny.V = append(a.deny.V, r.config())
		}
	}
	if !only.isSet() {
		return a
	}
	a.allow.Pos = only.pos
	for _, r := range only.rules.list() {
		switch {
		case !r.prefix.IsValid():
		case no.rules.has(r.key()):
			s.lost(r.word, "stands in no_access, too: nobody is let in by it, as by xinetd")
		default:
			if d, ok := covering(&no.rules, r.prefix); ok {
				s.changed(r.word, "is let in though no_access has %s, because the better match decides, as xinetd.conf(5) says; xinetd itself lets nobody in that no_access covers", d)
			}
			a.allow.V = append(a.allow.V, r.config())
		}
	}
	if a.allow.V == nil {
		s.changed(config.String{V: "only_from", Pos: only.pos}, "lets nobody in: access.allow has the address 0.0.0.0 alone, which is nobody's")
		a.allow = nobody(only.pos)
	}
	return a
}

// covering is the rule whose prefix is a shorter one of p.
func covering(in *rules, p netip.Prefix) (netip.Prefix, bool) {
	for bits := p.Bits() - 1; bits >= 0 && len(in.at) > 0; bits-- {
		short := netip.PrefixFrom(p.Addr(), bits).Masked()
		if in.has(ruleKey{prefix: short}) {
			return short, true
		}
	}
	return netip.Prefix{}, false
}

func covers(p, q netip.Prefix) bool {
	return p.IsValid() && q.IsValid() && p.Bits() < q.Bits() && p.Contains(q.Addr())
}

// config is the prefix as it is mostly written.
func (r rule) config() config.String {
	if r.prefix.IsSingleIP() {
		return config.String{V: r.prefix.Addr().String(), Pos: r.word.Pos}
	}
	return config.String{V: r.prefix.String(), Pos: r.word.Pos}
}

// fold applies the lines of an attribute to a list: = sets it, += adds and -= takes
// away. In the defaults = adds, too.
func (s *scope) fold(l list, name string, inDefaults bool) list {
	for _, a := range s.lines(name) {
		l.pos = a.name.Pos
		if a.op == "=" && !inDefaults {
			l.rules = rules{}
		}
		for _, v := range a.values {
			if strings.HasPrefix(v.V, "#") {
				s.lost(v, "begins no comment behind a value: a comment needs a line of its own, and what stands here is passed over")
				break
			}
			for _, r := range s.rules(a, v) {
				if a.op == "-=" {
					l.rules.drop(r.key())
				} else if !l.rules.has(r.key()) {
					l.rules.put(r.key(), r)
				}
			}
		}
	}
	return l
}

// rules reads one address, which may stand for several.
func (s *scope) rules(a line, v config.String) (out []rule) {
	add := func(p netip.Prefix) { out = append(out, rule{p.Masked(), v}) }
	host, bits, masked := strings.Cut(v.V, "/")
	addr, err := netip.ParseAddr(host)
	if err == nil {
		addr = addr.WithZone("")
	}
	n, errBits := strconv.ParseUint(bits, 10, 8)
	switch {
	case strings.Contains(v.V, "{"):
		list, wrong := factorized(v.V)
		if wrong != "" {
			s.bad(a, v, "%s", wrong)
		}
		for _, p := range list {
			add(p)
		}
	case strings.Contains(v.V, ","):
		s.bad(a, v, "has a comma in it; write the addresses with blanks between them")
	case masked && err == nil && (errBits != nil || int(n) > addr.BitLen()):
		s.bad(a, v, "has no length from 0 to %d behind its /; write such as 192.0.2.0/24 or 2001:db8::/32", addr.BitLen())
	case masked && err == nil:
		add(netip.PrefixFrom(addr, int(n)))
	case err == nil && addr.Is4():
		add(netip.PrefixFrom(addr, wildcard(addr)))
	case err == nil && addr.IsUnspecified():
		s.changed(v, "is taken as every IPv6 address")
		add(everyV6)
	case err == nil:
		add(netip.PrefixFrom(addr, addr.BitLen()))
	case strings.Trim(host, "0123456789.") == "":
		s.bad(a, v, "is no address; write all four numbers of it, as in 192.0.2.0")
	case v.V == "localhost":
		add(netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 32))
		add(netip.PrefixFrom(netip.IPv6Loopback(), 128))
	case a.name.V == "no_access" && a.op != "-=":
		s.bad(a, v, "is a name, and no name is looked up, so that whom it should keep out would be let in; write addresses")
	default:
		if a.op != "-=" {
			s.lost(v, "is a name, and no name is looked up: nobody is let in by it; write addresses")
		}
		out = append(out, rule{word: v})
	}
	// An IPv4 peer on xinetd's sockets for both is one of IPv6.
	for _, r := range out {
		if r.prefix.IsValid() && covers(r.prefix, mappedV4) {
			s.changed(v, "covers IPv4, too, on the sockets that xinetd has for both: 0.0.0.0/0 is added")
			add(everyV4)
		}
	}
	return out
}

// wildcard is how many bits of an address count: numbers that are 0 at its end stand
// for any.
func wildcard(a netip.Addr) int {
	b := a.As4()
	for n := 4; n > 0; n-- {
		if b[n-1] != 0 {
			return 8 * n
		}
	}
	return 0
}

// factorized reads such as 192.0.{2,3}: the numbers in the last place each make a
// prefix that ends there. wrong says what is wrong.
func factorized(s string) (list []netip.Prefix, wrong string) {
	const write = "write such as 192.0.2.{1,2} or 192.0.{2,3}"
	head, rest, _ := strings.Cut(s, "{")
	inner, ok := strings.CutSuffix(rest, "}")
	parts := strings.Split(head, ".")
	if !ok || len(parts) > 4 || parts[len(parts)-1] != "" {
		return nil, "is no list of addresses; " + write
	}
	var b [4]byte
	at := len(parts) - 1
	for i, p := range parts[:at] {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return nil, fmt.Sprintf("has %s where a number up to 255 is wanted; %s", clip(p), write)
		}
		b[i] = byte(n)
	}
	for p := range strings.SplitSeq(inner, ",") {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return nil, fmt.Sprintf("has %s where a number up to 255 is wanted; %s", clip(p), write)
		}
		b[at] = byte(n)
		list = append(list, netip.PrefixFrom(netip.AddrFrom4(b), 8*(at+1)))
	}
	return list, ""
}

// times reads access_times. Both ends of an interval are in it: the last minute as a
// whole.
func (s *svc) times() {
	lines := s.lines("access_times")
	if lines == nil {
		return
	}
	hours := config.List{Pos: lines[0].values[0].Pos}
	for _, v := range lines[0].values {
		from, to, ok := strings.Cut(v.V, "-")
		begin, ok1 := clock(from)
		end, ok2 := clock(to)
		switch {
		case !ok || !ok1 || !ok2:
			s.bad(lines[0], v, "is no interval; write such as 08:00-17:59, from 0:00 to 23:59")
			if strings.HasPrefix(v.V, "#") {
				return
			}
			continue
		case begin > end:
			s.bad(lines[0], v, "ends before it begins; write two: %s-23:59 and 0:00-%s", from, to)
			continue
		}
		end++
		hours.V = append(hours.V, config.String{V: fmt.Sprintf("%02d:%02d-%02d:%02d", begin/60, begin%60, end/60, end%60), Pos: v.Pos})
	}
	s.out.Access.Hours = hours
	if !s.out.Access.Pos.IsSet() {
		s.out.Access.Pos = hours.Pos
	}
}

// clock reads hours and minutes as minutes.
func clock(s string) (int, bool) {
	h, m, _ := strings.Cut(s, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	return int(60*hour + minute), err1 == nil && err2 == nil && hour < 24 && minute < 60 && len(h) <= 2 && len(m) <= 2
}
