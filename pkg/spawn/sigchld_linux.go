//go:build amd64 || arm64

package spawn

import "golang.org/x/sys/unix"

// QuietChildren gives SIGCHLD its default, which is to do nothing. Otherwise Go's
// handler would run for every child that ends, interrupt an epoll_wait(2), and
// find that nobody has asked for the signal. It is for a program that waits for
// its children in wait4(2) or waitid(2); os/signal cannot report SIGCHLD
// afterwards unless it is asked for anew.
func QuietChildren() error {
	if _, errno := disposition(int(unix.SIGCHLD), &sigaction{handler: sigDefault}); errno != 0 {
		return errno
	}
	return nil
}
