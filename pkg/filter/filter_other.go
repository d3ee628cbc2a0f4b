//go:build !linux

package filter

import (
	"errors"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

func load(*access.Rules, uint64) (*Filter, error) { return nil, errors.ErrUnsupported }

func find(int) (*Filter, error) { return nil, errors.ErrUnsupported }

func (f *Filter) attach(int) error { return errors.ErrUnsupported }

func (f *Filter) update(*access.Rules) error { return errors.ErrUnsupported }

func (f *Filter) close() {}

func explain(err error) error { return err }
