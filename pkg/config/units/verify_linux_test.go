// What systemd itself says of units and their names.

package units

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerify: systemd has nothing to say against any unit.
func TestVerify(t *testing.T) {
	for _, path := range inputs(t) {
		out, dir := of(t, path)
		args := []string{"verify", "--man=no"}
		for _, u := range out.Units {
			file := filepath.Join(dir, u.Name)
			if err := os.WriteFile(file, []byte(u.Text), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, file)
		}
		if len(args) == 2 {
			continue
		}
		cmd := exec.Command("systemd-analyze", args...)
		cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=notice")
		all, err := cmd.CombinedOutput()
		said := ""
		for line := range strings.Lines(string(all)) {
			if !strings.Contains(line, "Address family not supported, ignoring: vsock") { // the kernel's
				said += line
			}
		}
		if err != nil || said != "" {
			t.Errorf("%s: %v\n%s", path, err, said)
		}
	}
}

// TestEscape: as systemd-escape does, which is asked.
func TestEscape(t *testing.T) {
	for _, s := range []string{"ftp", "ftp-data", ".a", "a.b", "a_b:c", "a+b@c", "tcpmux/x", "%$~", "\u00e9"} {
		out, err := exec.Command("systemd-escape", "--", s).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := escape(s); got+"\n" != string(out) {
			t.Errorf("%q: %s, want %s", s, got, out)
		}
	}
}
