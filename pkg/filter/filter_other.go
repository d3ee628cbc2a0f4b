//go:build !linux

package filter

import (
	"errors"
	"net/netip"
)

func load(Judgment, uint64) (*Filter, error) { return nil, errors.ErrUnsupported }

func find(int) (*Filter, error) { return nil, errors.ErrUnsupported }

func (f *Filter) attach(int) error { return errors.ErrUnsupported }

func (f *Filter) update(Judgment) error { return errors.ErrUnsupported }

func (f *Filter) close() {}

func explain(err error) error { return err }

func newBans(int) (*Bans, error) { return nil, errors.ErrUnsupported }

func (b *Bans) add(netip.Prefix) error { return errors.ErrUnsupported }

func (b *Bans) remove(netip.Prefix) error { return errors.ErrUnsupported }

func (b *Bans) close() {}

func (f *Filter) ban(*Bans) error { return errors.ErrUnsupported }
