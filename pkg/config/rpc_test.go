package config

import (
	"fmt"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

func (accounts) Program(name string) (uint32, error) {
	if n, ok := map[string]uint32{"rstatd": 100001, "rusersd": 100002, "portmapper": 100000}[name]; ok {
		return n, nil
	}
	return 0, fmt.Errorf("RPC program %q: %w", name, account.ErrUnknown)
}
