//go:build !linux

package nft

import "errors"

func open() (*Conn, error) { return nil, errors.ErrUnsupported }

func (c *Conn) close() {}

func (c *Conn) look(Set, bool) (Kind, error) { return Kind{}, errors.ErrUnsupported }

func (c *Conn) change(Set, Kind, []Element, bool) error { return errors.ErrUnsupported }
