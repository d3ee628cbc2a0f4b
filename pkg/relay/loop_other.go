//go:build !linux

package relay

import "errors"

// A Loop is for Linux.
type Loop struct{}

// NewLoop is for Linux.
func NewLoop(*Names) (*Loop, error) { return nil, errors.ErrUnsupported }

// Add is for Linux.
func (l *Loop) Add(Conn) error { return ErrClosed }

// Cut is for Linux.
func (l *Loop) Cut(...uint64) {}

// CutAll is for Linux.
func (l *Loop) CutAll() {}

// Close is for Linux.
func (l *Loop) Close() {}

// Serve is for Linux.
func (l *Loop) Serve() ([]End, bool) { return nil, false }
