package supervisor

// The helpers: what the children of some tests do.

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// helperOptions writes what is set on the connection and how it was opened.
func helperOptions([]string) {
	get := func(level, name int) int {
		n, err := unix.GetsockoptInt(0, level, name)
		if err != nil {
			return -1
		}
		return n
	}
	flags, _ := unix.FcntlInt(0, unix.F_GETFL, 0)
	fmt.Printf("nodelay=%d keepalive=%d oobinline=%d lowat=%d linger=%d nonblock=%v protocol=%d\n",
		get(unix.IPPROTO_TCP, unix.TCP_NODELAY), get(unix.SOL_SOCKET, unix.SO_KEEPALIVE),
		get(unix.SOL_SOCKET, unix.SO_OOBINLINE), get(unix.SOL_SOCKET, unix.SO_RCVLOWAT),
		get(unix.SOL_SOCKET, unix.SO_LINGER), flags&unix.O_NONBLOCK != 0, get(unix.SOL_SOCKET, unix.SO_PROTOCOL))
}

// helperStopper stops every other process of its user, over and over, until its
// connection ends, or the test that it is for has long done so.
func helperStopper([]string) {
	os.Stdout.WriteString("stopping\n")
	time.AfterFunc(3*bound, func() { os.Exit(1) })
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	for {
		unix.Kill(-1, unix.SIGSTOP)
	}
}
