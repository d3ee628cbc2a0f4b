package config

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

const limitsText = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             unlimited            unlimited            bytes     
Max core file size        0                    0                    bytes     
Max open files            1024                 20000                files     
Max locked memory         65536                8388608              bytes     
Max nice priority         0                    40                   
Max realtime timeout      unlimited            unlimited            us        
`

func TestMachine(t *testing.T) {
	dir := filepath.Dir(write(t,
		"status", "Name:\tx\nCapPrm:\tffff\nCapEff:\t0000000000001400\nCapBnd:\tffff\n",
		"limits", limitsText, "cpus", "0-3,6\n",
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

	hard := hardLimits(at("limits"))
	for i, want := range map[int]uint64{0: service.RlimInfinity, 3: service.RlimInfinity, 4: 0, 7: 20000, 8: 8388608, 13: 40, 15: service.RlimInfinity} {
		if len(hard) != 16 || hard[i] != want {
			t.Errorf("hard limit of %s: %v, want %d", rlimitKeys[i].name, hard, want)
		}
	}
	if got := hardLimits(at("none")); got != nil {
		t.Errorf("hard limits of none %v", got)
	}
	if got := possibleCPUs(at("cpus")); !slices.Equal(got, []int{0, 1, 2, 3, 6}) {
		t.Errorf("processors %v", got)
	}
	for _, name := range []string{"none", "garbage"} {
		if got := possibleCPUs(at(name)); got != nil {
			t.Errorf("processors of %s %v", name, got)
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
	var nofile syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &nofile); err != nil {
		t.Fatal(err)
	}
	if o.HardLimits != nil && o.HardLimits[7] != uint64(nofile.Max) { // where there is /proc
		t.Errorf("hard limit of open files %d, want %d", o.HardLimits[7], nofile.Max)
	}
	if _, err := o.ReadFile(at("plain")); err != nil {
		t.Error(err)
	}
	if r := o.AsRoot(); r.UID != 0 || !r.BindPrivileged || !r.NetAdmin || !r.NetRaw || !r.SysChroot || !r.SysAdmin || !r.SysNice || !r.SysResource || r == o {
		t.Errorf("as root %+v", r)
	}
}
