package main

// What a command line comes to, for what no daemon has to be started for.

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

func TestPersona(t *testing.T) {
	for _, tt := range []struct {
		argv []string
		name string
		args int
	}{
		{nil, "tcpmuxd", 0},
		{[]string{"tcpmuxd", "-t"}, "tcpmuxd", 1},
		{[]string{"/usr/sbin/inetd", "xinetd"}, "inetd", 1},
		{[]string{"tcpmuxd", "inetd", "-d"}, "inetd", 1},
		{[]string{"xinetd"}, "xinetd", 0},
		{[]string{"tcpmuxd", "inetutils-inetd"}, "inetutils-inetd", 0},
	} {
		if name, args := persona(tt.argv); name != tt.name || len(args) != tt.args {
			t.Errorf("%q: %s %q", tt.argv, name, args)
		}
	}
}

// TestAsInetd: where the pid file is in GNU's manner and in FreeBSD's, and what is
// an operand.
func TestAsInetd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		pid   string
		files []string
	}{
		{"inetd", []string{"-p", "x", "conf"}, "x", []string{"conf"}},
		{"inetutils-inetd", []string{"-p", "conf"}, inetdPidFile, []string{"conf"}},
		{"inetutils-inetd", []string{"-px", "conf", "dir"}, "x", []string{"conf", "dir"}},
		{"inetd", []string{"-dp", "-R", "5", "conf"}, inetdPidFile, []string{"conf"}},
		{"inetd", []string{"--pidfile", "conf", "--", "-d"}, inetdPidFile, []string{"conf", "-d"}},
		{"inetd", []string{"conf", "-wWlp/x"}, "/x", []string{"conf"}},
		{"openbsd-inetd", nil, inetdPidFile, []string{inetdConfig}},
	} {
		c, err := asInetd(tt.name, tt.args)
		if err != nil || c.pidFile != tt.pid || !slices.Equal(c.files, tt.files) {
			t.Errorf("%s %q: %+v, %v", tt.name, tt.args, c, err)
		}
	}
}

// TestInetdCompat: both files are one table.
func TestInetdCompat(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, err := asXinetd([]string{"-inetd_compat", "-limit", "9"})
	if err != nil || !slices.Equal(c.files, []string{xinetdConfig, inetdConfig}) {
		t.Fatalf("%+v, %v", c, err)
	}
	f := c.open([]string{
		write("xinetd.conf", "service echo\n{\n\ttype = INTERNAL\n\tsocket_type = stream\n\twait = no\n}\n"),
		write("inetd.conf", "7777 stream tcp4 nowait root /bin/cat cat\n"),
	})(config.NewDisk())
	table, _, err := config.Compile(f, config.System(account.Open(account.System(), getent)))
	if len(f.Services) != 2 || len(f.Problems) > 0 || f.Server.Limits.Instances.V != 9 {
		t.Errorf("%d rows, %v, %+v", len(f.Services), f.Problems, f.Server.Limits)
	}
	if err != nil || len(table.Services) == 0 {
		t.Errorf("the table: %v", err)
	}
}
