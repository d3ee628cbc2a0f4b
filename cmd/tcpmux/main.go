// Command tcpmux is a client of RFC 1078: it asks the multiplexer of a host for
// a service by name and then is a pipe between the service and its own standard
// input and output. Without a name it lists the services.
//
// It speaks to one server over plain TCP and knows nothing of what a service
// says; encryption and logins are the business of the programs at both ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// version is set by the linker.
var version = "devel"

// The exit codes: those of sysexits(3), and 1 for the server's own "no". They
// are part of the interface and stand in the manual page.
const (
	exitOK          = 0
	exitRefused     = 1  // the server answered "-"
	exitUsage       = 64 // EX_USAGE
	exitNoHost      = 68 // EX_NOHOST: the name has no address
	exitUnavailable = 69 // EX_UNAVAILABLE: no address can be connected to
	exitIO          = 74 // EX_IOERR: reading or writing failed, the connection broke off
	exitTimeout     = 75 // EX_TEMPFAIL: no connection or no reply in time
	exitProtocol    = 76 // EX_PROTOCOL: what came is no reply of RFC 1078
)

const usage = `usage: tcpmux [-4 | -6] [-t timeout] host[:port] [service]
       tcpmux -V | -h

Ask the TCPMUX server of a host, port 1 unless another is given, for a service
and connect it to standard input and output. Without a service: list them.

  -4, -6      IPv4 only, IPv6 only
  -t timeout  for connecting and the reply together (default 10s; 0 for ever)
  -V, -h      print the version, print this
`

// A failure is an error together with the exit code that stands for it.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err == nil {
		os.Exit(exitOK)
	}
	// Part of the message can be the server's words, which must not reach a
	// terminal as commands.
	fmt.Fprintf(os.Stderr, "tcpmux: error: %s\n", printable(err.Error()))
	code := exitIO
	var f *failure
	if errors.As(err, &f) {
		code = f.code
	}
	if code == exitUsage {
		fmt.Fprint(os.Stderr, "tcpmux: hint: tcpmux -h explains the arguments\n")
	}
	os.Exit(code)
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("tcpmux", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var (
		only4   = flags.Bool("4", false, "")
		only6   = flags.Bool("6", false, "")
		showV   = flags.Bool("V", false, "")
		timeout = 10 * time.Second
	)
	flags.Func("t", "", func(s string) (err error) {
		if timeout, err = time.ParseDuration(s); err != nil && s != "" && strings.Trim(s, "0123456789") == "" {
			err = fmt.Errorf("no unit: write %ss", s)
		} else if err != nil {
			err = errors.New("no duration: write one such as 10s or 500ms")
		}
		return err
	})
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return write(stdout, usage)
	case err != nil:
		return failed(exitUsage, "%w", err)
	case *showV:
		return write(stdout, "tcpmux "+version+"\n")
	case *only4 && *only6:
		return failed(exitUsage, "-4 and -6 exclude each other")
	case timeout < 0:
		return failed(exitUsage, "-t %v: less than nothing", timeout)
	case flags.NArg() < 1:
		return failed(exitUsage, "no host given")
	case flags.NArg() > 2:
		return failed(exitUsage, "more than a host and a service given")
	}
	address, err := parseAddress(flags.Arg(0))
	if err != nil {
		return failed(exitUsage, "%w", err)
	}
	network := "tcp"
	switch {
	case *only4:
		network = "tcp4"
	case *only6:
		network = "tcp6"
	}
	// HELP is reserved (RFC 1078), so asking for it is asking for the list,
	// also when it is spelled out.
	name := "HELP"
	if flags.NArg() == 2 {
		name = flags.Arg(1)
	}
	request, err := tcpmux.AppendRequest(nil, name)
	if err != nil {
		return failed(exitUsage, "%w", err)
	}

	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if tcpmux.IsHelp([]byte(name)) {
		return listServices(conn, request, stdout)
	}
	rest, err := negotiate(conn, request)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Time{})
	return relay(conn, rest, stdin, stdout)
}

// dial connects to the first address of the host that answers; both families
// are tried side by side (RFC 8305), which is net.Dialer's own way.
func dial(ctx context.Context, network, address string) (*net.TCPConn, error) {
	// The dialer's error would not tell a bad port from a bad host.
	if _, port, err := net.SplitHostPort(address); err != nil {
		return nil, failed(exitUsage, "%w", err)
	} else if _, err := net.DefaultResolver.LookupPort(ctx, network, port); err != nil {
		return nil, failed(exitUsage, "%q: a port is 1 to 65535 or a name of services(5)", port)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	var (
		timeout net.Error
		dns     *net.DNSError
		addr    *net.AddrError
	)
	switch {
	case err == nil:
		return conn.(*net.TCPConn), nil
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return nil, failed(exitTimeout, "connecting to %s: timed out", address)
	case errors.As(err, &dns), errors.As(err, &addr):
		return nil, failed(exitNoHost, "connecting to %s: %w", address, err)
	}
	return nil, failed(exitUnavailable, "connecting to %s: %w", address, err)
}

// write is for the few words of -h and -V.
func write(w io.Writer, s string) error {
	if _, err := io.WriteString(w, s); err != nil {
		return failed(exitIO, "writing standard output: %w", err)
	}
	return nil
}

// printable replaces what could move the cursor or worse.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
