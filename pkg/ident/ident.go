package ident

// Who owns a connection, and what of that is told.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// lookups is how many owners are looked up at the same time. One whose home is on
// a file system that hangs holds a thread and one of these for as long as it hangs,
// and no more than these.
const lookups = 8

var (
	// errNoConnection: there is no such connection, or it is no process's any more.
	errNoConnection = errors.New("no such connection")
	errDeaf         = errors.New("the kernel does not tell of connections; it needs the modules inet_diag and tcp_diag")
	errHome         = errors.New("reading what a user has in his home")
)

// A Question is asked over a connection.
type Question struct {
	Query
	// Local and Remote are the ends of the connection that asks.
	Local, Remote netip.AddrPort
}

// An Answerer looks up the owners of connections. It is safe for concurrent use.
type Answerer struct {
	accounts func() *account.DB
	slots    chan struct{}
	hears    atomic.Bool // the kernel has told of a connection already

	owner func(local, remote netip.AddrPort) (uint32, error) // for tests
}

// New makes an Answerer that asks a DB of its own, made by accounts, for each user.
func New(accounts func() *account.DB) *Answerer {
	return &Answerer{accounts: accounts, slots: make(chan struct{}, lookups), owner: owner}
}

// Told is the reply for which nothing has to be looked up; empty if something has
// to be.
func Told(s *service.Ident, q Query) string {
	switch {
	case s.Reply == service.IdentRandom:
		return q.User(s.OS, fmt.Sprintf("%06x", rand.N(1<<24)))
	case !s.Reply.Looks():
		return nothing(s, q, HiddenUser)
	}
	return ""
}

// nothing is the reply where there is nothing to tell.
func nothing(s *service.Ident, q Query, why string) string {
	if s.Fallback != "" {
		return q.User(s.OS, s.Fallback)
	}
	return q.Error(why)
}

// Answer looks up who owns the connection that q is about, and replies as s says.
// It returns when ctx ends, if not before. Besides the reply, which there always
// is, it returns what was in the way on this machine.
func (a *Answerer) Answer(ctx context.Context, s *service.Ident, q Question) (reply string, err error) {
	type result struct {
		reply string
		err   error
	}
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return nothing(s, q.Query, UnknownError), fmt.Errorf("%d others are being looked up: %w", lookups, ctx.Err())
	}
	done := make(chan result, 1)
	go func() { // which may hang in a file system
		defer func() { <-a.slots }()
		reply, err := a.look(s, q)
		done <- result{reply, err}
	}()
	select {
	case r := <-done:
		return r.reply, r.err
	case <-ctx.Done():
		return nothing(s, q.Query, UnknownError), ctx.Err()
	}
}

func (a *Answerer) look(s *service.Ident, q Question) (string, error) {
	uid, err := a.find(q)
	switch {
	case errors.Is(err, errNoConnection):
		return nothing(s, q.Query, NoUser), nil
	case err != nil:
		return nothing(s, q.Query, UnknownError), err
	}
	number := strconv.FormatUint(uint64(uid), 10)
	if s.Reply == service.IdentUID && s.Fakeid == service.FakeidOff && !s.Noident {
		return q.User(s.OS, number), nil
	}
	db := a.accounts()
	u, err := db.UID(uid)
	switch {
	case errors.Is(err, account.ErrUnknown) && s.Reply == service.IdentUID:
		return q.User(s.OS, number), nil // he has no home to look in
	case errors.Is(err, account.ErrUnknown):
		return nothing(s, q.Query, NoUser), nil
	case err != nil:
		return nothing(s, q.Query, UnknownError), err
	}
	id := u.Name
	if s.Reply == service.IdentUID {
		id = number
	}
	if s.Noident || s.Fakeid != service.FakeidOff {
		h, err := readHome(u, s)
		switch {
		case err != nil:
			// Nobody knows what he wants, so that he is not told of.
			return q.Error(HiddenUser), fmt.Errorf("%w: %w", errHome, err)
		case h.noident:
			return q.Error(HiddenUser), nil
		case h.fakeid != "" && (s.Fakeid == service.FakeidAny || unused(db, s.Reply, h.fakeid)):
			id = h.fakeid
		}
	}
	return q.User(s.OS, id), nil
}

// unused reports whether no user is called so, by his name or, where numbers are
// told, by his number.
func unused(db *account.DB, reply service.IdentReply, id string) bool {
	if n, err := strconv.ParseUint(id, 10, 32); err == nil && reply == service.IdentUID {
		_, err := db.UID(uint32(n))
		return errors.Is(err, account.ErrUnknown)
	}
	u, err := db.User(id)
	return errors.Is(err, account.ErrUnknown) || err == nil && u.Bare
}

// find asks the kernel who owns the connection. Where it knows of none, it may be
// that it never tells: until it has done so once, it is asked about the connection
// that asks as well.
func (a *Answerer) find(q Question) (uint32, error) {
	uid, err := a.owner(netip.AddrPortFrom(q.Local.Addr(), uint16(q.Server)), netip.AddrPortFrom(q.Remote.Addr(), uint16(q.Client)))
	if err == nil {
		a.hears.Store(true)
		return uid, nil
	}
	if !errors.Is(err, errNoConnection) || a.hears.Load() {
		return 0, err
	}
	if _, err := a.owner(q.Local, q.Remote); err != nil {
		if errors.Is(err, errNoConnection) {
			err = errDeaf
		}
		return 0, err
	}
	a.hears.Store(true)
	return 0, err
}
