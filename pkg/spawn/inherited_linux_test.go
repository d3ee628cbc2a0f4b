//go:build amd64 || arm64

package spawn

// A daemon that was started with descriptors: it keeps them, knows where they
// are, and gives none away.

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// openNamed opens a file of its own as fd, so that fd can be told from others.
func openNamed(fd int) error {
	file, err := unix.MemfdCreate(fmt.Sprint("inherited ", fd), 0)
	if err != nil || file == fd {
		return err
	}
	if err := unix.Dup2(file, fd); err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return unix.Close(file)
}

// lookForInherited checks where every descriptor is now, up to the last that was
// inherited and a few more.
func (r *report) lookForInherited(o *odd, marker string) {
	want := map[int]string{}
	last := 50
	for _, fd := range o.Inherited {
		want[fd] = ""
		last = max(last, fd+50)
	}
	for fd := 3; fd < o.InheritedTo; fd++ {
		want[fd] = ""
		last = max(last, fd+50)
	}
	for fd := -1; fd < last; fd++ {
		_, was := want[fd]
		now, ok := Inherited(fd)
		switch {
		case was != ok:
			r.Lost = append(r.Lost, fmt.Sprintf("%d: inherited is %v, want %v", fd, ok, was))
			continue
		case !was:
			continue
		}
		want[fd] = marker
		if o.Named {
			want[fd] = fmt.Sprintf("/memfd:inherited %d (deleted)", fd)
		}
		if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", now)); link != want[fd] {
			r.Lost = append(r.Lost, fmt.Sprintf("%d: is now %d, %s, %v", fd, now, link, err))
		}
		if native, _ := Native(); native && now < slots.low {
			r.Lost = append(r.Lost, fmt.Sprintf("%d: is now %d, below %d", fd, now, slots.low))
		}
	}
}

// CVE-2002-0871: xinetd gave children descriptors of its own.
func TestCVE_2002_0871(t *testing.T) {
	testkit.Check(t)
	for _, o := range []odd{
		{Inherited: []int{3}},
		{Inherited: []int{4, 7, 26, 27, 28, 29, 63, 64, 255, 1000}},
		{InheritedTo: 20},
		{InheritedTo: 300},
		{InheritedTo: 300, Poller: true},
		{Inherited: []int{3, 5, 30}, Poller: true},
		// Sockets of a service manager.
		{InheritedTo: 4, Named: true},
		{InheritedTo: 30, Named: true, Poller: true},
		{InheritedTo: 600, Named: true},
		{InheritedTo: 600, Named: true, Blocked: signals},
		{InheritedTo: 40, Named: true, Closed: []int{0, 1, 2}},
		{Inherited: []int{3, 4, 7, 70, 71, 900}, Named: true, Denied: map[uint32]syscall.Errno{unix.SYS_CLOSE_RANGE: unix.ENOSYS}},
		{InheritedTo: 3 + scaled(15000)},
		{InheritedTo: 3 + scaled(15000), Blocked: signals, Ignored: signals},
		{InheritedTo: 40, Nofile: [2]uint64{64, 64}},
	} {
		o.Umask = 0o22
		n := len(o.Inherited) + max(0, o.InheritedTo-3)
		r := startOdd(t, o)
		r.right(t, n)
		if o.Poller && !r.Poller {
			t.Errorf("the Go runtime has lost its poller: %+v", o)
		}
	}
}

func init() {
	// probed finds inherited descriptors in both ways.
	helpers["probed"] = func([]string) (any, error) {
		for _, fd := range []int{5, 9, 40, 1000} {
			if err := openNamed(fd); err != nil {
				return nil, err
			}
		}
		noteInherited()
		listed := inherited
		inherited = map[int]int{}
		noteProbed()
		return []map[int]int{listed, inherited}, nil
	}
}

// Without /proc every number is looked at.
func TestInheritedWithoutProc(t *testing.T) {
	testkit.Check(t)
	var got []map[int]int
	runHelper(t, &got, "probed")
	want := map[int]int{5: 5, 9: 9, 40: 40, 1000: 1000}
	if diff := cmp.Diff([]map[int]int{want, want}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if now, ok := Inherited(2); ok {
		t.Errorf("standard error is inherited as %d", now)
	}
}

// LOW does not depend on what was inherited.
func TestLowIsConstant(t *testing.T) {
	testkit.Check(t)
	want := startOdd(t, odd{Umask: 0o22})
	for _, n := range []int{10, 1000, 3 + scaled(15000)} {
		if r := startOdd(t, odd{Umask: 0o22, InheritedTo: n}); r.Low > want.Low || r.Slots != want.Slots {
			t.Errorf("%d inherited descriptors: %d slots below %d, want %d below %d", n-3, r.Slots, r.Low, want.Slots, want.Low)
		}
	}
}
