//go:build !linux

package ident

import (
	"errors"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// readHome is for Linux.
func readHome(account.User, *service.Ident) (home, error) {
	_ = fakeidIn
	return home{}, errors.ErrUnsupported
}
