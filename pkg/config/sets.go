// Sets: prefixes that have a name, from the configuration or from a file of their
// own, which may change while the table stays.

package config

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
)

// The bounds of sets.
const (
	maxSetFile  = 16 << 20 // bytes
	maxSetName  = 64
	setProblems = 5 // of a file are told one by one
)

// A set is a [set.NAME] with what is in it.
type set struct {
	text     *Set
	prefixes []netip.Prefix
}

// readSets compiles all sets, also those that no row names.
func (c *compiler) readSets() {
	for _, text := range c.f.Sets {
		r := &row{c: c, text: &Service{ID: "[set." + quoteKey(text.Name) + "]"}}
		s := &set{text: text}
		if other := c.sets[text.Name]; other != nil {
			r.errorf("", text.Pos, "there is such a set already at %s; take one of them out or call it otherwise", other.text.Pos)
			continue
		}
		c.sets[text.Name] = s
		if !validSetName(text.Name) {
			r.errorf("", text.Pos, "%s is no name of a set; write letters, digits and .-_", clip(text.Name))
		}
		switch {
		case text.File.IsSet() && text.Prefixes.IsSet():
			r.errorf("file", text.File.Pos, "the set has prefixes as well; write only one of them, or two sets")
		case text.File.IsSet():
			if r.absolute("file", text.File, "/etc/tcpmuxd/office") {
				s.prefixes = r.setFile(text.File)
			}
		case text.Bad:
		case !text.Prefixes.IsSet():
			r.errorf("", text.Pos, "the set has nothing in it; write prefixes = [\"192.0.2.0/24\"] or file = \"/PATH\"")
		case len(text.Prefixes.V) == 0:
			r.errorf("prefixes", text.Prefixes.Pos, "an empty list; write an address or a prefix, or a file, which may be empty")
		default:
			for _, p := range text.Prefixes.V {
				if !p.IsSet() {
					continue
				}
				if strings.HasPrefix(p.V, "@") {
					r.errorf("prefixes", p.Pos, "a set has no other sets in it; write %s where the row names this one", clip(p.V))
				} else if q, ok := r.prefix("prefixes", p); ok {
					s.prefixes = append(s.prefixes, q)
				}
			}
		}
	}
}

func validSetName(s string) bool {
	return s != "" && len(s) <= maxSetName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

// setFile is what is in the file of a set. While a table runs, a file that is
// wrong leaves the set as it was.
func (r *row) setFile(file String) []netip.Prefix {
	f, err := r.c.asked.sets.ask(file.V, r.c.o.setFile)
	var wrong []*Problem
	say := func(pos Pos, format string, args ...any) {
		wrong = append(wrong, r.problem("file", pos, format, args))
	}
	switch {
	case err != nil:
		say(file.Pos, "reading %s: %v; write the path of a file with a prefix a line", file.V, reason(err))
	case len(f.wrong) > 0:
		for i, w := range f.wrong {
			if i == setProblems {
				say(Pos{file.V, w.line, 1}, "this line and %d more are wrong as well", len(f.wrong)-i-1)
				break
			}
			say(Pos{file.V, w.line, 1}, "%s", w.text)
		}
	default:
		r.c.known[file.V] = f.prefixes
		return f.prefixes
	}
	was, known := r.c.known[file.V]
	if !r.c.o.VanishedUsers || !known {
		r.c.errors = append(r.c.errors, wrong...)
		return nil
	}
	for _, p := range wrong {
		p.Text += " (the set stays as it was)"
	}
	r.c.warnings = append(r.c.warnings, wrong...)
	return was
}

// A setFile is a file of a set as it was read. The text itself is not kept: it may
// be long.
type setFile struct {
	sum      uint64 // by setSeed
	prefixes []netip.Prefix
	wrong    []wrongLine
}

type wrongLine struct {
	line int32
	text string
}

// setSeed makes sums that no file can be made for.
var setSeed = maphash.MakeSeed()

func sameSetFile(a, b *setFile) bool { return a.sum == b.sum }

// setFile reads a prefix or an address a line. What follows "#" is passed over.
func (o *Options) setFile(path string) (*setFile, error) {
	text, err := o.ReadSet(path)
	if err != nil {
		return nil, err
	}
	f := &setFile{sum: maphash.Bytes(setSeed, text)}
	n := int32(0)
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, wrong := parsePrefix(line)
		if wrong != "" {
			f.wrong = append(f.wrong, wrongLine{n, wrong})
			continue
		}
		f.prefixes = append(f.prefixes, p)
	}
	return f, nil
}

// parsePrefix reads an address or a prefix; wrong says what is wrong with it, and
// what to write instead.
func parsePrefix(s string) (p netip.Prefix, wrong string) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(s); err == nil && a.Zone() == "" {
			p = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	switch {
	case !p.IsValid():
		return p, fmt.Sprintf("%s is no address or prefix; write one such as \"192.0.2.0/24\" or \"2001:db8::/32\" instead", clip(s))
	case p.Addr().Is4In6():
		return p, fmt.Sprintf("%s covers IPv4 and more; write \"0.0.0.0/0\" or \"::/0\" instead", clip(s))
	case p != p.Masked():
		return p, fmt.Sprintf("%s has bits after its %d; write \"%s\" for the network or \"%s\" for the host instead", clip(s), p.Bits(), p.Masked(), p.Addr())
	}
	return p, ""
}

func (r *row) prefix(key string, s String) (netip.Prefix, bool) {
	p, wrong := parsePrefix(s.V)
	if wrong != "" {
		r.errorf(key, s.Pos, "%s", wrong)
	}
	return p, wrong == ""
}

// An entry is an element of a list of prefixes: one, or a set of them.
type entry struct {
	String
	set      bool
	file     bool // what is in the set is in a file
	prefixes []netip.Prefix
}

// entries reads a list of addresses, prefixes and names of sets. What is wrong is
// left out.
func (r *row) entries(key string, l List) (list []entry) {
	for _, s := range l.V {
		if !s.IsSet() {
			continue
		}
		name, isSet := strings.CutPrefix(s.V, "@")
		if !isSet {
			if p, ok := r.prefix(key, s); ok {
				list = append(list, entry{s, false, false, []netip.Prefix{p}})
			}
			continue
		}
		set := r.c.sets[name]
		if set == nil {
			r.noSet(key, s, name)
			continue
		}
		list = append(list, entry{s, true, set.text.File.IsSet(), set.prefixes})
	}
	return list
}

func (r *row) noSet(key string, s String, name string) {
	var names []string
	for n := range r.c.sets {
		names = append(names, n)
	}
	slices.Sort(names)
	write := "write a table [set." + quoteKey(name) + "]"
	if name == "" {
		write = "write \"@NAME\""
	}
	if w := nearest(name, names); w != "" {
		write = fmt.Sprintf("write \"@%s\" instead", w)
	}
	r.errorf(key, s.Pos, "there is no set %s; %s", clip(s.V), write)
}

// prefixes reads a list of addresses, prefixes and names of sets, for keys that do
// not care which; keep may refuse one. The list may come out empty where it has
// sets, which are empty.
func (r *row) prefixes(key string, l List, keep func(netip.Prefix, Pos) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range r.entries(key, l) {
		for _, p := range e.prefixes {
			if keep == nil || keep(p, e.Pos) {
				out = append(out, p)
			}
		}
	}
	return out
}
