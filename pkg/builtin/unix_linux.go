package builtin

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// AnswerUnix takes one datagram from a unix socket without waiting and, if answer
// says so, answers whoever has sent it, if he has an address. A sender whose
// queue is full gets nothing. EAGAIN: there is no datagram.
func (d *Datagrams) AnswerUnix(fd int, b service.Builtin, answer bool, now func() time.Time) error {
	if d.single == nil {
		d.single = make([]byte, largest)
	}
	d.text = d.text[:0]
	n, from, err := unix.Recvfrom(fd, d.single, unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	sender, ok := from.(*unix.SockaddrUnix)
	if !answer || !ok || sender.Name == "" {
		return nil
	}
	if payload := d.payload(b, d.single[:n], now); payload != nil {
		// What is wrong with it is the sender's affair.
		unix.Sendto(fd, payload, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sender)
	}
	return nil
}
