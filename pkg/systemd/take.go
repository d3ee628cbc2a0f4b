package systemd

// The sockets that were passed, sd_listen_fds(3).

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The variables of the protocol. LISTEN_PIDFDID is newer than sd_listen_fds(3)
// of systemd 252.
const (
	listenPID     = "LISTEN_PID"
	listenPIDFDID = "LISTEN_PIDFDID"
	listenFDs     = "LISTEN_FDS"
	listenNames   = "LISTEN_FDNAMES"
)

// firstFD is SD_LISTEN_FDS_START: the first passed descriptor, as it was when
// the process was started.
const firstFD = 3

// maxFDs bounds what LISTEN_FDS is believed: more open files than this no
// process has.
const maxFDs = 1 << 20

// Find tells about descriptors; Take calls it for what was passed.
type Find struct {
	// Now is where a descriptor that was inherited as fd is now. ok is false if
	// none was. See spawn.Inherited.
	Now func(fd int) (now int, ok bool)
	// Inspect says what a descriptor is, and whether somebody can connect or
	// send to it: a listener, or a datagram socket without a peer. See
	// listener.Inspect.
	Inspect func(fd int) (ep service.Endpoint, listening bool, err error)
	// Close closes a descriptor that is no use.
	Close func(fd int) error
}

// Take returns the sockets that this process was passed, in their order. From
// then on the caller owns them. What was passed and cannot be served on is
// closed, and reported by one error each; the sockets that are returned are
// good regardless.
//
// Variables that are not for this process, by LISTEN_PID and LISTEN_PIDFDID, are
// ignored, as sd_listen_fds does; ignored then says so. In any case all of them
// are gone from the environment afterwards. So Take belongs to the start of a
// program, after spawn.Init, and finds nothing a second time.
func Take(f Find) (passed []service.Passed, ignored string, errs []error) {
	env := map[string]string{}
	for _, name := range []string{listenPID, listenPIDFDID, listenFDs, listenNames} {
		if v, ok := os.LookupEnv(name); ok {
			env[name] = v
		}
		os.Unsetenv(name)
	}
	number, names, ignored, err := read(env, os.Getpid(), pidfdID)
	if err != nil {
		errs = append(errs, err)
	}
	for i := range number {
		p, err := take(f, firstFD+i, names[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		passed = append(passed, p)
	}
	return passed, ignored, errs
}

// take looks at one descriptor.
func take(f Find, was int, name string) (service.Passed, error) {
	fail := func(err error) (service.Passed, error) {
		return service.Passed{}, fmt.Errorf("%s: %w", label(was, name), err)
	}
	now, ok := f.Now(was)
	if !ok {
		return fail(fmt.Errorf("it is not open"))
	}
	ep, listening, err := f.Inspect(now)
	if err == nil && !listening {
		err = fmt.Errorf("it is a connection, and no socket to serve on")
	}
	if err != nil {
		f.Close(now)
		return fail(err)
	}
	return service.Passed{FD: now, Name: name, Endpoint: ep}, nil
}

// label is how a passed descriptor is called in an error.
func label(was int, name string) string {
	if name == "" {
		return fmt.Sprintf("descriptor %d", was)
	}
	return fmt.Sprintf("descriptor %d, %q", was, name)
}

// read reads the variables: how many descriptors were passed to process pid, and
// their names, one for each. The error is about what is wrong in the text; what
// can be understood is returned with it.
func read(env map[string]string, pid int, pidfdID func() (uint64, bool)) (number int, names []string, ignored string, err error) {
	text, ok := env[listenFDs]
	if !ok {
		return 0, nil, "", nil
	}
	forPID, ok := env[listenPID]
	if !ok {
		return 0, nil, listenPID + " is not set", nil
	}
	if p, err := strconv.Atoi(forPID); err != nil {
		return 0, nil, "", fmt.Errorf("%s=%s is no process", listenPID, forPID)
	} else if p != pid {
		return 0, nil, fmt.Sprintf("%s is %d, and this is process %d", listenPID, p, pid), nil
	}
	// The number of a process comes again, this one does not.
	if want, ok := env[listenPIDFDID]; ok {
		w, err := strconv.ParseUint(want, 10, 64)
		if err != nil {
			return 0, nil, "", fmt.Errorf("%s=%s is no number", listenPIDFDID, want)
		}
		if have, known := pidfdID(); known && have != w {
			return 0, nil, fmt.Sprintf("%s is %d, and this process has %d", listenPIDFDID, w, have), nil
		}
	}
	number, err = strconv.Atoi(text)
	if err != nil || number < 0 || number > maxFDs {
		return 0, nil, "", fmt.Errorf("%s=%s is no number of descriptors", listenFDs, text)
	}
	names, err = readNames(env[listenNames], number)
	return number, names, "", err
}

// readNames takes the list of names apart, which has no escapes. Those that are
// missing are empty; those that are too many name nothing, and are an error.
func readNames(text string, number int) ([]string, error) {
	names := make([]string, number)
	if text == "" {
		return names, nil
	}
	given := strings.Split(text, ":")
	copy(names, given)
	if len(given) > number {
		return names, fmt.Errorf("%s has %d names for %d descriptors", listenNames, len(given), number)
	}
	return names, nil
}
