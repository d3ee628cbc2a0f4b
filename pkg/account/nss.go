// Which source is asked first, and how getent is asked.

package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// find looks name up in one database; question is what getent is asked. The files' answer stands if nsswitch.conf
// names them first: a name that is there is looked for nowhere else. Otherwise
// getent is asked, and the files have the last word where it cannot be.
func find[T any](db *DB, database string, t *table[T], path string, parse parser[T], name, question string) (T, error) {
	var none T
	loadErr := t.load(path, parse)
	v, ok := t.byName[name]
	src := db.sources(database)
	if db.getent == nil || !more(src) || ok && src[0] == "files" {
		switch {
		case ok:
			return v, nil
		case loadErr != nil:
			return none, loadErr
		}
		return none, ErrUnknown
	}
	out, err := db.ask(database, question)
	if err == nil {
		// getent may answer with an alias' entry or fold case: take what was
		// asked for, else the only entry there is.
		entries := make(map[string]T)
		first := ""
		parse(string(out), func(name string, v T) {
			if first == "" {
				first = name
			}
			if _, ok := entries[name]; !ok {
				entries[name] = v
			}
		})
		if v, ok := entries[name]; ok {
			return v, nil
		}
		if first != "" && !isNumber(name) {
			return entries[first], nil
		}
	}
	switch {
	case ok:
		return v, nil
	case err != nil:
		return none, err
	}
	return none, ErrUnknown
}

// findUID looks for the entry that has this number.
func findUID(db *DB, uid uint32) (User, error) {
	for _, name := range db.passwd.order {
		if u := db.passwd.byName[name]; u.UID == uid {
			return u, nil
		}
	}
	if db.getent == nil || !more(db.sources("passwd")) {
		return User{}, ErrUnknown
	}
	out, err := db.ask("passwd", strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return User{}, err
	}
	u, found := User{}, false
	parsePasswd(string(out), func(_ string, e User) {
		if e.UID == uid && !found {
			u, found = e, true
		}
	})
	if !found {
		return User{}, ErrUnknown
	}
	return u, nil
}

func isNumber(s string) bool { _, ok := number(s); return ok }

// ask runs getent once for each question.
func (db *DB) ask(args ...string) ([]byte, error) {
	k := strings.Join(args, " ")
	if a, ok := db.asked[k]; ok {
		return a.out, a.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), getentTimeout)
	defer cancel()
	out, err := db.getent(ctx, args...)
	if errors.Is(err, fs.ErrNotExist) {
		// There is no getent here, so no program on this machine is told more
		// than files say.
		out, err = nil, nil
	}
	if err != nil {
		err = fmt.Errorf("asking getent %s: %w", k, err)
	}
	db.asked[k] = answer{out, err}
	return out, err
}

// more reports whether a database has other sources than files.
func more(sources []string) bool {
	return slices.ContainsFunc(sources, func(s string) bool { return s != "files" })
}

// sources lists where nsswitch.conf(5) says a database is looked up, in order.
// No such file, and no such line, is files alone.
func (db *DB) sources(database string) []string {
	if db.nss == nil {
		db.nss = make(map[string][]string)
		text, _ := os.ReadFile(db.files.NSSwitch) // systems without NSS have none
		parseNSSwitch(string(text), db.nss)
	}
	return db.nss[database]
}

func parseNSSwitch(text string, nss map[string][]string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		name, list, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		name = strings.TrimSpace(name)
		action := false
		for _, w := range strings.Fields(list) {
			// [NOTFOUND=return] and the like, with or without blanks inside.
			if strings.HasPrefix(w, "[") {
				action = true
			}
			if !action {
				nss[name] = append(nss[name], w)
			}
			if strings.HasSuffix(w, "]") {
				action = false
			}
		}
	}
}

// A table is one file, read when it is first needed.
type table[T any] struct {
	done   bool
	err    error
	byName map[string]T
	order  []string // as in the file
}

// A parser calls yield for every entry of text, in order.
type parser[T any] func(text string, yield func(name string, v T))

func (t *table[T]) load(path string, parse parser[T]) error {
	if t.done {
		return t.err
	}
	t.done, t.byName = true, make(map[string]T)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.err = err // no such file is an empty one
	}
	parse(string(text), func(name string, v T) {
		if _, ok := t.byName[name]; !ok { // the first entry counts, as in getpwnam(3)
			t.byName[name] = v
			t.order = append(t.order, name)
		}
	})
	return t.err
}
