//go:build amd64 || arm64

package spawn

import (
	"fmt"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestCompilerShares: what programs have in common is there once, and none has
// anything of another's, whatever becomes of what they were compiled from.
func TestCompilerShares(t *testing.T) {
	if native, _ := Native(); !native {
		return // the twin shares nothing
	}
	c := NewCompiler()
	var programs []*Program
	var want []string
	for i := range 60 { // more environments than are remembered
		user := i % 20
		a := Attr{
			Path: fmt.Sprint("/bin/", i), Argv: []string{fmt.Sprint(i)}, Umask: uint32(0o22 + i%3), Dir: "/",
			Env:  []string{"PATH=/bin", fmt.Sprint("USER=", user)},
			Cred: &Cred{UID: 70000 + uint32(user), GID: 1, Groups: []uint32{1, 70000 + uint32(user)}},
		}
		p, err := c.Compile(&a)
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
		want = append(want, fmt.Sprintf("/bin/%d [%[1]d] [PATH=/bin USER=%d] %[2]d %d %v umask %v", i, user, 70000+user, []uint32{1, 70000 + uint32(user)}, i%3 != 0))
		again, err := c.Compile(&a)
		if err != nil {
			t.Fatal(err)
		}
		if &again.native.envp[0] != &p.native.envp[0] || &again.native.steps[0] != &p.native.steps[0] {
			t.Fatalf("program %d shares nothing with the one that is the same", i)
		}
		a.Argv[0], a.Env[1], a.Cred.Groups[0] = "x", "USER=x", 7
	}
	for i, p := range programs {
		if got := describe(&p.native); got != want[i] {
			t.Errorf("program %d\nis   %s\nwant %s", i, got, want[i])
		}
	}
}

// describe reads a program as the kernel would.
func describe(n *program) string {
	text := func(at uintptr) string { return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&at))) }
	list := func(at []uintptr) (l []string) {
		for _, s := range at[:len(at)-1] {
			l = append(l, text(s))
		}
		return l
	}
	uid := uintptr(0)
	var groups []uint32
	for i, o := range n.ops {
		switch n.steps[i] {
		case "setgroups":
			groups = unsafe.Slice(*(**uint32)(unsafe.Pointer(&o.a[1])), o.a[0])
		case "setresuid":
			uid = o.a[0]
		}
	}
	if !slices.Equal(list(n.envp), n.env) || n.ops[n.exec].nr != unix.SYS_EXECVE {
		return "nothing that can be run"
	}
	return fmt.Sprint(text(n.ops[n.exec].a[0]), " ", list(n.argv), " ", n.env, " ", uid-70000, " ", uid, " ", groups, " umask ", slices.Contains(n.steps, "umask"))
}
