package supervisor

// Tables with so many sockets that several threads open them.

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// crowd is rows with two sockets each, and one with many, all on one port.
func crowd(port int) (rows []*service.Service, where []service.Endpoint) {
	for i := range 2 * manySockets {
		where = append(where, on(fmt.Sprintf("127.7.%d.%d", i/200, i%200+1), port))
	}
	for i := range manySockets / 2 {
		rows = append(rows, at(fmt.Sprintf("row%d", i), cat(), where[2*i], where[2*i+1]))
	}
	return append(rows, at("many", cat(), where[manySockets:]...)), where
}

// All of them or none, whoever is in the way, and each has those of its row in their
// order.
func TestManySockets(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	rows, where := crowd(port)
	s := serve(t, direct("old", testkit.FreePort(t), cat()))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	after := 0 // the first of these
	for _, i := range []int{3, manySockets + 7, 3} {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: where[i].Addr.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
		var all *multierror.Error
		if err := s.Apply(table(rows...)); !errors.As(err, &all) || len(all.Errors) != 1 {
			t.Fatalf("with one address taken: %v", err)
		}
		if n := descriptors(t); after == 0 {
			after = n
		} else if n != after {
			t.Errorf("%d descriptors are open after that, %d before", n, after)
		}
		unix.Close(fd)
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	}
	s.reload(rows...)
	for _, sv := range rows {
		if !s.unit(sv.ID).complete(sv) {
			t.Errorf("%s has not its sockets, in their order", sv.ID)
		}
	}
	for _, i := range []int{0, 1, 2, manySockets - 1, manySockets, 2*manySockets - 1} {
		c, err := net.Dial("tcp", where[i].Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(bound))
		(&client{c.(*net.TCPConn), t}).send("x").expect("x").half().ends("")
	}
	s.instances(0)
}
