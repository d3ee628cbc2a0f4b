// A configuration that is read again and again: most often nothing has changed,
// and then nothing is to be done.

package config

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A Reading is a configuration as it was read and compiled, with everything that
// made it what it is: the text of each file, and each answer of the file system
// and of Options. It keeps none of the words, of which a row has many more than
// it has text. It is not changed by its methods.
type Reading struct {
	Table    *service.Table // nil if there is an error
	Warnings []*Problem
	Err      error // see Compile

	source  Source
	disk    *Disk
	asked   cache
	options Options                   // without what can be asked
	up      bool                      // it was asked which addresses are up
	known   map[string][]netip.Prefix // of files of sets, as they were when they were right
	names   map[string][]netip.Addr   // of hosts, as they were when they were known
}

// A Source makes a File of what is on the disk: a front end and the files it is
// to begin with. What it reads, it reads by d.
type Source func(d *Disk) *File

// Read has s read, and compiles that.
func Read(s Source, o *Options) *Reading { return newReading(s, NewDisk(), o, nil, nil) }

// Read reads the same files again, and what they include now. If neither a file
// nor an answer of o has changed it returns r itself.
func (r *Reading) Read(o *Options) *Reading {
	if r.disk.hold() && r.holds(o) {
		return r
	}
	return newReading(r.source, NewDisk(), o, nil, r.names)
}

// SetFiles are the files of the sets, and those of access.hosts_access, sorted. Who
// watches them calls Compile with VanishedUsers when one has changed.
func (r *Reading) SetFiles() []string {
	files := slices.AppendSeq(slices.Collect(maps.Keys(r.asked.sets)), maps.Keys(r.asked.hosts))
	slices.Sort(files)
	return slices.Compact(files)
}

// Compile compiles what was read then again, whatever is in the files by now: for
// when users have changed. If no answer of o has changed it returns r itself.
func (r *Reading) Compile(o *Options) *Reading {
	if r.holds(o) {
		return r
	}
	return newReading(r.source, r.disk, o, r.known, r.names)
}

func newReading(s Source, d *Disk, o *Options, known map[string][]netip.Prefix, names map[string][]netip.Addr) *Reading {
	c := newCompiler(s(d), o)
	maps.Copy(c.known, known)
	maps.Copy(c.names, names)
	r := &Reading{source: s, disk: d, asked: c.asked, options: o.facts(), up: o.Up != nil, known: c.known, names: c.names}
	r.Table, r.Warnings, r.Err = c.compile()
	return r
}

// holds reports whether Compile would make the same table of the same text. With
// VanishedUsers it makes nothing else of a text that was right without.
func (r *Reading) holds(o *Options) bool {
	facts := o.facts()
	facts.VanishedUsers = r.options.VanishedUsers
	return r.Err == nil && (o.VanishedUsers || !r.options.VanishedUsers) &&
		(o.Up != nil) == r.up && reflect.DeepEqual(facts, r.options) && r.asked.hold(o)
}

// facts are o without what is asked.
func (o *Options) facts() Options {
	f := *o
	f.Accounts, f.Program, f.Dir, f.ReadFile, f.Up = nil, nil, nil, nil, nil
	f.ReadSet, f.Zone, f.Host = nil, nil, nil
	return f
}
