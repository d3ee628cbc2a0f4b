package supervisor

// builtin = "auth": who owns a connection is asked over another one between the
// same machines, and nobody is told of any other. The line is package relay's, the
// look-up package ident's; it may take its time, and no loop waits for it.

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/ident"
)

// Identify says who looks up the owners of connections. It is called before Apply;
// without it they are not known.
func (s *Supervisor) Identify(a *ident.Answerer) { s.ident = a }

// asks has a question answered that came over the connection of an instance. It is
// called by a loop of relays.
func (s *Supervisor) asks(r *row, in *instance, line []byte, reply func(string)) {
	answer := func(text string) {
		s.log.identified(in, text)
		reply(text)
	}
	if len(line) > ident.MaxLine {
		line = nil
	}
	q, ok := ident.Parse(line)
	if !ok {
		answer(q.Error(ident.InvalidPort))
		return
	}
	if text := ident.Told(&r.Ident, q); text != "" {
		answer(text)
		return
	}
	// Behind a load balancer, and on other sockets that a multiplexer has, there are
	// no two ends that a connection could be found by.
	if s.ident == nil || in.peer.Proxy != nil || !in.peer.Network.TCP() {
		answer(q.Error(ident.UnknownError))
		return
	}
	ask := ident.Question{Query: q, Local: in.local.Addr, Remote: in.peer.Addr}
	left := r.Ident.Timeout - (s.now() - in.start)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), left)
		defer cancel()
		text, err := s.ident.Answer(ctx, &r.Ident, ask)
		if err != nil {
			s.log.unidentified(in, ask, err)
		}
		answer(text)
	}()
}

// identified: a question was answered. Sampled.
func (e *events) identified(in *instance, text string) {
	if e.sample(sampleKey{in.unit.id, "ident", ""}) {
		e.info("ident", append(in.attrs(nil), slog.String("answer", strings.TrimSpace(text)))...)
	}
}

// unidentified: something on this machine was in the way of an answer. Sampled.
func (e *events) unidentified(in *instance, q ident.Question, err error) {
	if e.sample(sampleKey{in.unit.id, "cannot identify", ""}) {
		of := netip.AddrPortFrom(q.Local.Addr(), uint16(q.Server))
		e.warn("cannot identify", append(in.attrs(nil), slog.String("connection", of.String()), slog.String("error", err.Error()))...)
	}
}
