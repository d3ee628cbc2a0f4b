package supervisor

// Addresses that come up later: the kernel tells over rtnetlink(7) when one has.

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// watchAddresses calls changed whenever an address or an interface of this
// machine may have come up, until the returned value is closed.
func watchAddresses(changed func()) (io.Closer, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribing to addresses: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	go func() {
		b := make([]byte, 16<<10)
		for {
			// What exactly has changed does not matter: bind(2) is the
			// judge. After a burst the kernel says ENOBUFS, which only
			// means that there was more than one change.
			if _, err := f.Read(b); err != nil && !overrun(err) {
				return
			}
			changed()
		}
	}()
	return f, nil
}
