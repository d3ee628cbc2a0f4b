package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

func TestMachine(t *testing.T) {
	dir := filepath.Dir(write(t,
		"status", "Name:\tx\nCapPrm:\tffff\nCapEff:\t0000000000001400\nCapBnd:\tffff\n",
		"port", "80\n", "garbage", "CapEff:\tzz\n", "plain", "x"))
	at := func(name string) string { return filepath.Join(dir, name) }
	if got := capabilities(at("status")); got != 1<<capNetAdmin|1<<capNetBindService {
		t.Errorf("capabilities %x", got)
	}
	for _, name := range []string{"none", "garbage"} { // then by the user alone
		if got := capabilities(at(name)); (got != 0) != (os.Geteuid() == 0) {
			t.Errorf("capabilities of %s %x", name, got)
		}
	}
	if got := unprivilegedPort(at("port")); got != 80 {
		t.Errorf("port %d", got)
	}
	for _, name := range []string{"none", "garbage"} {
		if got := unprivilegedPort(at(name)); got != 1024 {
			t.Errorf("port of %s %d", name, got)
		}
	}

	if err := os.Chmod(at("status"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"status": "", "plain": "not executable", ".": "not a regular file", "none": "no such file or directory"} {
		if err := program(at(name)); want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("program %s: %v", name, err)
		}
	}
	for name, want := range map[string]string{".": "", "plain": "not a directory", "none": "no such file or directory"} {
		if err := directory(at(name)); want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("directory %s: %v", name, err)
		}
	}

	o := System(account.Open(account.System(), nil))
	if o.UID != uint32(os.Geteuid()) || o.GID != uint32(os.Getegid()) || len(o.Environ) != len(os.Environ()) {
		t.Errorf("options %+v", o)
	}
	if _, err := o.ReadFile(at("plain")); err != nil {
		t.Error(err)
	}
	if r := o.AsRoot(); r.UID != 0 || !r.BindPrivileged || !r.NetAdmin || !r.NetRaw || !r.SysChroot || !r.SysAdmin || !r.SysNice || !r.SysResource || r == o {
		t.Errorf("as root %+v", r)
	}
}
