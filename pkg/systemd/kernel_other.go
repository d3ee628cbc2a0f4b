//go:build !linux

package systemd

// systemd is on Linux only. The protocols work without these two.

func pidfdID() (id uint64, known bool) { return 0, false }

func monotonic() uint64 { return 0 }
