//go:build amd64 || arm64

package spawn

// The children of the tests, and what can be seen of them.
//
// A child that is to be looked at must not change what it was given, as the Go
// runtime and a C library do: dispositions, limits, descriptors. So the programs
// are a few instructions without either. "wait" reads its standard input to the
// end and exits; meanwhile the test looks at it from outside, in /proc. "exit"
// exits.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// elf is the smallest static program that holds code.
func elf(code []byte) []byte {
	const base, header = 0x400000, 64 + 56
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	w := func(v any) { binary.Write(&b, binary.LittleEndian, v) }
	w(uint16(2)) // ET_EXEC
	w(uint16(elfMachine))
	w(uint32(1))
	w(uint64(base + header)) // entry
	w(uint64(64))            // program headers
	w(uint64(0))
	w(uint32(0))
	w([]uint16{64, 56, 1, 0, 0, 0})
	w([]uint32{1, 5})          // PT_LOAD, readable and executable
	w([]uint64{0, base, base}) // from offset 0
	n := uint64(header + len(code))
	w([]uint64{n, n, 0x10000})
	b.Write(code)
	return b.Bytes()
}

// The programs, written by TestMain into a directory that every user may read.
var progWait, progExit string

func writePrograms(dir string) error {
	progWait, progExit = filepath.Join(dir, "wait"), filepath.Join(dir, "exit")
	for name, code := range map[string][]byte{progWait: codeWait, progExit: codeExit} {
		if err := writeProgram(name, elf(code)); err != nil {
			return err
		}
	}
	return nil
}

// writeProgram writes a file that can be executed at once: no child that is being
// started meanwhile may hold it open for writing (ETXTBSY), so it is written
// under the lock that forks respect, and by a descriptor nobody inherits.
func writeProgram(name string, content []byte) error {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	return os.WriteFile(name, content, 0o755)
}

// pair returns two connected stream sockets: the child's end, and the peer's.
func pair(t testing.TB) (conn int, peer *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(fds[1], true)
	peer = os.NewFile(uintptr(fds[1]), "peer")
	t.Cleanup(func() { peer.Close() })
	return fds[0], peer
}

// received is everything the peer gets until the connection ends.
func received(t testing.TB, peer *os.File) string {
	t.Helper()
	peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(peer)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("peer: %v", err)
	}
	return string(b)
}

// reap waits for one child, not longer than 10 s.
func reap(t testing.TB, pid int) syscall.WaitStatus {
	t.Helper()
	var status syscall.WaitStatus
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if got == pid {
			return status
		}
		if err != nil && err != syscall.EINTR {
			t.Fatalf("waiting for child %d: %v", pid, err)
		}
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("child %d does not end", pid)
		}
	}
}

// statusKeys are the lines of /proc/PID/status that a child is responsible for.
var statusKeys = []string{
	"Umask", "TracerPid", "Uid", "Gid", "Groups", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt",
	"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed_list",
}

// seen is what a program finds when it starts.
type seen struct {
	Exe, Cwd, Root string
	Cmdline        []string
	Environ        []string
	Files          map[string]string // with their flags: octal, as open(2) has them
	Status         map[string]string
	Limits         map[string]string
	Parent         bool // its parent is this process
	Leader         bool // it leads a session and a process group
	TTY            string
	Nice, OOM      string
	IOPrio         int
}

// look waits until pid is "wait" in its loop: Start returns as soon as execve
// cannot fail any more, a little before the new memory is complete.
func look(pid int) (seen, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(stat, []byte(") S ")) && len(argv) > 0 {
			break
		}
		if time.Now().After(deadline) {
			return seen{}, fmt.Errorf("child %d is not there: %q", pid, stat)
		}
	}
	return lookNow(pid)
}

func lookNow(pid int) (seen, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	s := seen{Files: map[string]string{}, Status: map[string]string{}, Limits: map[string]string{}}
	var err error
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	link := func(name string) string {
		target, e := os.Readlink(dir + name)
		keep(e)
		return target
	}
	read := func(name string) string {
		b, e := os.ReadFile(dir + name)
		keep(e)
		return string(b)
	}
	list := func(name string) []string {
		b := strings.TrimSuffix(read(name), "\x00")
		if b == "" {
			return nil
		}
		return strings.Split(b, "\x00")
	}

	s.Exe, s.Cwd, s.Root = link("exe"), link("cwd"), link("root")
	s.Cmdline, s.Environ = list("cmdline"), list("environ")
	var entries []os.DirEntry
	if pid != os.Getpid() { // our own change while they are read
		var e error
		entries, e = os.ReadDir(dir + "fd")
		keep(e)
	}
	for _, entry := range entries {
		s.Files[entry.Name()] = link("fd/"+entry.Name()) + " " + flagsOf(read("fdinfo/"+entry.Name()))
	}
	status := map[string]string{}
	for line := range strings.Lines(read("status")) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.Join(strings.Fields(v), " ")
	}
	for _, k := range statusKeys {
		s.Status[k] = status[k]
	}
	for line := range strings.Lines(read("limits")) {
		f := strings.Fields(line)
		if f[0] != "Limit" {
			s.Limits[strings.TrimSpace(line[:min(26, len(line))])] = strings.Join(strings.Fields(line[26:]), " ")
		}
	}
	// After the name in brackets: state, ppid, pgrp, session, tty_nr, …
	_, stat, _ := strings.Cut(read("stat"), ") ")
	f := strings.Fields(stat)
	if len(f) < 17 {
		return s, errors.Join(err, fmt.Errorf("child %d: stat is %q", pid, stat))
	}
	id := fmt.Sprint(pid)
	s.Parent = f[1] == fmt.Sprint(os.Getpid())
	s.Leader = f[2] == id && f[3] == id
	s.TTY, s.Nice, s.OOM = f[4], f[16], strings.TrimSpace(read("oom_score_adj"))
	prio, _, errno := syscall.RawSyscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
	if errno != 0 {
		keep(errno)
	}
	s.IOPrio = int(prio)
	return s, err
}

// flagsOf finds the flags in a file of /proc/PID/fdinfo.
func flagsOf(info string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, "flags:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fileOf is how lookNow would show a descriptor of ours to a child that gets it.
func fileOf(fd int) (string, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return "", err
	}
	flags, err := strconv.ParseUint(flagsOf(string(info)), 8, 64)
	return fmt.Sprintf("%s 0%o", link, flags&^unix.O_CLOEXEC), err
}

// expected is what the child of a must see, in full. conn is its connection and
// extra the environment that Start was given, without names that a.Env has.
func expected(a *Attr, conn int, extra ...string) (seen, error) {
	return expectedLog(a, conn, noLog, extra...)
}

func expectedLog(a *Attr, conn, log int, extra ...string) (seen, error) {
	own, err := lookNow(os.Getpid())
	if err != nil {
		return own, err
	}
	w := seen{
		Exe: a.Path, Cwd: a.Dir, Root: own.Root, Cmdline: a.Argv,
		Environ: append(append([]string(nil), a.Env...), extra...),
		Status:  own.Status, Limits: own.Limits, Parent: true, Leader: true, TTY: "0",
		Nice: own.Nice, OOM: own.OOM, IOPrio: own.IOPrio,
	}
	if a.Dir == "" {
		w.Cwd = own.Cwd
	}
	if a.Chroot != "" {
		w.Root, w.Exe, w.Cwd = a.Chroot, a.Chroot+a.Path, strings.TrimSuffix(a.Chroot+a.Dir, "/")
	}
	w.Files = map[string]string{}
	for i, what := range []Stdio{Socket, a.Stdout, a.Stderr} {
		if w.Files[strconv.Itoa(i)], err = fileOf([]int{Socket: conn, Log: log, Null: slots.null}[what]); err != nil {
			return w, err
		}
	}
	// CapInh is empty after Init, but not on every thread where there is cgo.
	for _, k := range []string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh"} {
		w.Status[k] = "0000000000000000"
	}
	w.Status["TracerPid"], w.Status["NoNewPrivs"] = "0", "0"
	w.Status["Umask"] = fmt.Sprintf("%04o", a.Umask)
	if c := a.Cred; c != nil {
		w.Status["Uid"] = strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", c.UID), 4))
		w.Status["Gid"] = strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", c.GID), 4))
		w.Status["Groups"] = strings.Trim(fmt.Sprint(c.Groups), "[]")
		if c.UID != 0 {
			for _, k := range []string{"CapPrm", "CapEff", "CapAmb"} {
				w.Status[k] = "0000000000000000"
			}
		}
	}
	soft, hard := OriginalNofile()
	w.Limits["Max open files"] = fmt.Sprintf("%d %d files", soft, hard)
	for _, l := range a.Rlimits {
		name, unit := limitNames[l.Resource][0], limitNames[l.Resource][1]
		w.Limits[name] = strings.TrimSpace(limitText(l.Soft) + " " + limitText(l.Hard) + " " + unit)
	}
	if a.Nice != nil {
		w.Nice = strconv.Itoa(*a.Nice)
	}
	if a.IOPrio != nil {
		w.IOPrio = int(a.IOPrio.Class)<<13 | int(a.IOPrio.Level)
	}
	if a.OOMScoreAdj != nil {
		w.OOM = strconv.Itoa(*a.OOMScoreAdj)
	}
	if len(a.CPUs) > 0 {
		w.Status["Cpus_allowed_list"] = strings.ReplaceAll(strings.Trim(fmt.Sprint(a.CPUs), "[]"), " ", ",")
	}
	return w, nil
}

// limitNames is what the limits are called in /proc/PID/limits, and their units.
var limitNames = [rlimits][2]string{
	{"Max cpu time", "seconds"}, {"Max file size", "bytes"}, {"Max data size", "bytes"}, {"Max stack size", "bytes"},
	{"Max core file size", "bytes"}, {"Max resident set", "bytes"}, {"Max processes", "processes"}, {"Max open files", "files"},
	{"Max locked memory", "bytes"}, {"Max address space", "bytes"}, {"Max file locks", "locks"}, {"Max pending signals", "signals"},
	{"Max msgqueue size", "bytes"}, {"Max nice priority", ""}, {"Max realtime priority", ""}, {"Max realtime timeout", "us"},
}

func limitText(v uint64) string {
	if v == ^uint64(0) {
		return "unlimited"
	}
	return strconv.FormatUint(v, 10)
}

// status says how a child ended.
func status(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal " + ws.Signal().String()
	}
	return fmt.Sprintf("exit %d", ws.ExitStatus())
}

func procFD(pid int) string { return fmt.Sprintf("/proc/%d/fd", pid) }

// stateOf is the state of a process as ps(1) shows it, 0 if there is none.
func stateOf(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, ok := bytes.Cut(stat, []byte(") "))
	if err != nil || !ok {
		return 0
	}
	return state[0]
}

// statusOf is a line of /proc/PID/status, "" if there is none.
func statusOf(pid int, key string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
