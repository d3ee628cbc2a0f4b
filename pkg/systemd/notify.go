package systemd

// What the daemon tells about itself, sd_notify(3).

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// patience is how long the manager may leave a message unread before it is
// reported. It reads at once unless it hangs.
const patience = 2 * time.Second

// A Notifier tells the service manager what state the daemon is in. No method
// waits for the manager, except Close, and all may be called from any goroutine.
//
// A message may wait for ever, because the manager's queue is full. So there is
// one goroutine that sends, in the order of states, and what it sends next is
// the newest of each: however long nobody reads, what is kept is one of each.
//
// A nil Notifier is that of a daemon that has nobody to tell.
type Notifier struct {
	send    func(state string) error
	problem func(error) // see NewNotifier

	mu      sync.Mutex
	news    news
	told    string // the last status that was given to be sent
	failing bool   // the last message has not gone through
	closing bool
	wake    chan struct{} // there are news
	done    chan struct{} // nothing more will be sent
}

// news is what is to be sent, each at most once.
type news struct {
	reloading uint64 // MONOTONIC_USEC, 0: no
	ready     bool
	stopping  bool
	extend    time.Duration // with stopping
	status    string        // empty: nothing new
	alive     bool
}

// NewNotifier returns nil if nobody wants to know: NOTIFY_SOCKET is not set. It is
// not set afterwards in any case.
//
// problem is called when a message cannot be sent, or is not read for seconds;
// from any goroutine, and not again before a message has gone through.
func NewNotifier(problem func(error)) *Notifier {
	path := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	w := &wire{path: path}
	return newNotifier(w.send, problem)
}

// A wire is a socket to the manager. The library's SdNotify opens one for every
// message: a daemon that is out of descriptors for a while could not say that it
// is alive, and would be ended for it. So this one stays open.
type wire struct {
	path string
	conn *net.UnixConn
}

// send waits until there is room for a message.
func (w *wire) send(state string) (err error) {
	for range 2 {
		if w.conn == nil {
			if w.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: w.path, Net: "unixgram"}); err != nil {
				return err
			}
		}
		if _, err = w.conn.Write([]byte(state)); err == nil {
			return nil
		}
		// The manager may have another socket of that name by now.
		w.conn.Close()
		w.conn = nil
	}
	return err
}

func newNotifier(send func(string) error, problem func(error)) *Notifier {
	n := &Notifier{send: send, problem: problem, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go n.run()
	return n
}

// Reloading says that the daemon reads its configuration anew, until Ready.
func (n *Notifier) Reloading() {
	n.tell(func(news *news) { news.reloading, news.ready = max(1, monotonic()), false })
}

// Ready says that the daemon serves.
func (n *Notifier) Ready() { n.tell(func(news *news) { news.ready = true }) }

// Stopping says that the daemon ends, and may take as long as most for it
// before the manager loses patience.
func (n *Notifier) Stopping(most time.Duration) {
	n.tell(func(news *news) { news.stopping, news.extend = true, most })
}

// Status gives the manager a line for people. The same again costs nothing.
func (n *Notifier) Status(line string) {
	n.tell(func(news *news) {
		line = strings.ReplaceAll(line, "\n", " ")
		if line != n.told {
			n.told, news.status = line, line
		}
	})
}

func (n *Notifier) alive() { n.tell(func(news *news) { news.alive = true }) }

// tell changes the news under the lock, and has them sent.
func (n *Notifier) tell(change func(*news)) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.news
	change(&n.news)
	if n.closing || n.news == before {
		return
	}
	n.wakeLocked()
}

func (n *Notifier) wakeLocked() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Close sends what is left, but does not wait for it for longer than most.
// Nothing is sent for what is told afterwards.
func (n *Notifier) Close(most time.Duration) {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.closing = true
	n.wakeLocked()
	n.mu.Unlock()
	select {
	case <-n.done:
	case <-time.After(most):
	}
}

// run sends.
func (n *Notifier) run() {
	defer close(n.done)
	for {
		n.mu.Lock()
		now, closing := n.news, n.closing
		n.news = news{}
		n.mu.Unlock()
		messages := now.messages()
		if len(messages) == 0 {
			if closing {
				return
			}
			<-n.wake
			continue
		}
		for _, m := range messages {
			slow := time.AfterFunc(patience, func() { n.outcome(errUnread) })
			err := n.send(m)
			slow.Stop()
			n.outcome(err)
		}
	}
}

var errUnread = errors.New("nobody reads the messages")

// outcome reports the first failure of several.
func (n *Notifier) outcome(err error) {
	n.mu.Lock()
	first := err != nil && !n.failing
	n.failing = err != nil
	n.mu.Unlock()
	if first {
		n.problem(err)
	}
}

// messages is the news in the order in which they make sense. A reload that has
// ended is told as one that has begun, first, because the manager may wait for
// both.
func (n news) messages() (list []string) {
	if n.reloading != 0 {
		list = append(list, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, n.reloading))
	}
	var lines []string
	if n.ready {
		lines = append(lines, daemon.SdNotifyReady)
	}
	if n.alive {
		lines = append(lines, daemon.SdNotifyWatchdog)
	}
	if n.stopping {
		lines = append(lines, daemon.SdNotifyStopping)
		if n.extend > 0 {
			lines = append(lines, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", n.extend.Microseconds()))
		}
	}
	if n.status != "" {
		lines = append(lines, "STATUS="+n.status)
	}
	if lines != nil {
		list = append(list, strings.Join(lines, "\n"))
	}
	return list
}
