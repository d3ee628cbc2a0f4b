package config

// What depends on the machine a table is for, and what the machine is told.

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPortableSpawn: without the spawn program children have the daemon's
// umask, so no row may ask for another one.
func TestPortableSpawn(t *testing.T) {
	o := asRoot()
	o.Native = false
	row := "[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"\n"
	for _, text := range []string{row, row + "umask = \"022\"\n", row + "umask = \"22\"\n"} {
		must(t, text, o)
	}
	_, _, err := compile(t, row+"umask = \"027\"\n", o)
	want := `t.toml:4:9: row "ftp": umask: the portable way of starting programs, the only one here, knows no umask but the daemon's own; write umask = "022" or take it out`
	if err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	_, _, err = compile(t, "[defaults]\numask = \"0\"\n"+row, o)
	if err == nil || !strings.HasPrefix(err.Error(), "t.toml:2:9: [defaults]: umask: ") {
		t.Errorf("error %v", err)
	}
}

// TestNotUp: what this machine does not have now is a warning, where anybody
// asks.
func TestNotUp(t *testing.T) {
	text := `
[defaults]
user = "root"
exec = "/bin/a"
[service.ftp]
listen = ["127.0.0.1:21", "192.0.2.9:21", "[2001:db8::9]:21", "[fe80::1%eth9]:21", "22"]
[service.free]
listen = ["192.0.2.9:23", "[fe80::1%eth9]:23"]
freebind = true
[service.dev]
listen = ["24", "192.0.2.9:27"]
bind_to_device = "eth9"
[service.vrf]
listen = ["192.0.2.9:25"]
bind_to_device = "red"
[service.off]
enabled = false
listen = "192.0.2.9:26"
`
	asked := make(map[string]int)
	o := asRoot()
	_, warnings, err := compile(t, text, o)
	if err != nil || len(warnings) != 0 {
		t.Fatalf("nobody asks: %v, %v", warnings, err)
	}
	o.Up = func(a netip.Addr, device string) bool {
		asked[fmt.Sprint(a, device)]++
		return device == "red" || device == "" && a.IsLoopback()
	}
	_, warnings, err = compile(t, text, o)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`t.toml:6:27: row "ftp": listen: 192.0.2.9 is not up on this machine; the row listens there as soon as it is`,
		`t.toml:6:43: row "ftp": listen: 2001:db8::9 is not up on this machine; the row listens there as soon as it is`,
		`t.toml:6:63: row "ftp": listen: fe80::1%eth9 is not up on this machine; the row listens there as soon as it is`,
		`t.toml:8:27: row "free": listen: fe80::1%eth9 is not up on this machine; the row listens there as soon as it is`,
		`t.toml:12:18: row "dev": bind_to_device: there is no interface "eth9"; the row listens as soon as there is`,
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.Error())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("warnings (-want +got):\n%s", d)
	}
	for q, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked %d times", q, n)
		}
	}
}

// TestEnvFileAdvice: what is no fault of the configuration is not called one.
func TestEnvFileAdvice(t *testing.T) {
	text := "[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"\nenv_file = \"/etc/x\"\n"
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOENT: "write the path of a file of NAME=value lines",
		syscall.EACCES: "write the path of a file of NAME=value lines",
		syscall.EMFILE: "nothing is wrong with the configuration, have it read again",
		syscall.ENOMEM: "nothing is wrong with the configuration, have it read again",
	} {
		o := asRoot()
		o.ReadFile = func(path string) ([]byte, error) { return nil, &os.PathError{Op: "open", Path: path, Err: errno} }
		_, _, err := compile(t, text, o)
		if want := fmt.Sprintf("t.toml:4:12: row \"ftp\": env_file: reading /etc/x: %v; %s", errno, want); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestListenOrigin: every endpoint says where it is written, also where nobody
// wrote it, and a row that has only moved is still the same.
func TestListenOrigin(t *testing.T) {
	text := "[defaults]\nuser = \"root\"\nexec = \"/bin/a\"\n[service.ftp]\n[service.x]\nname = \"ssh\"\n[service.\"tcpmux/a\"]\n"
	rows := must(t, text, asRoot())
	for id, want := range map[string]string{
		"ftp": "[t.toml:4:10 t.toml:4:10]", "x": "[t.toml:6:8 t.toml:6:8]", "tcpmux": "[t.toml:7:10 t.toml:7:10]", "tcpmux/a": "[]",
	} {
		if got := fmt.Sprint(rows[id].ListenOrigin); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	moved := must(t, "\n"+text, asRoot())
	for id, s := range rows {
		if !s.Equal(moved[id]) {
			t.Errorf("%s has changed", id)
		}
	}
}
