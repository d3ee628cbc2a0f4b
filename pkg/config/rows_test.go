package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// rowsText is a table of n rows, each with a port of its own and a program.
func rowsText(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[service.row-%d]\nlisten = \"%d\"\nexec = [\"/bin/echo\", \"row\", \"%d\"]\nuser = \"root\"\n\n", i, 20000+i, i)
	}
	return b.String()
}

func BenchmarkParse5000Rows(b *testing.B) {
	text := rowsText(5000)
	b.ReportAllocs()
	for b.Loop() {
		if f, _ := Parse("tcpmuxd.toml", text); len(f.Problems) > 0 {
			b.Fatal(f.Problems[0])
		}
	}
}

func BenchmarkCompile5000Rows(b *testing.B) {
	f, _ := Parse("tcpmuxd.toml", rowsText(5000))
	o := asRoot()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Compile(f, o); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRowsShare: rows of one user have one environment and one identity between
// them, and nobody gets what another row has set.
func TestRowsShare(t *testing.T) {
	rows := must(t, `
[service.a]
listen = "2001"
exec = "/bin/a"
user = "alice"
[service.b]
listen = "2002"
exec = "/bin/b"
user = "alice"
[service.env]
listen = "2003"
exec = "/bin/a"
user = "alice"
env = { A = "x", HOME = "/srv" }
[service.groups]
listen = "2004"
exec = "/bin/a"
user = "alice"
groups = ["ftp"]
[service.group]
listen = "2005"
exec = "/bin/a"
user = "alice"
group = "ftp"
[service.uid]
listen = "2006"
exec = "/bin/a"
user = "1000"
[service.c]
listen = "2007"
exec = "/bin/c"
user = "alice"
`, asRoot())
	a := rows["a"].Exec
	for _, id := range []string{"b", "c"} {
		if e := rows[id].Exec; &e.Env[0] != &a.Env[0] || e.Cred != a.Cred {
			t.Errorf("row %s shares nothing with row a", id)
		}
	}
	const plain = "[HOME=/home/alice LOGNAME=alice PATH=/usr/local/bin:/usr/bin:/bin SHELL=/bin/sh USER=alice]"
	for id, want := range map[string]string{
		"a": "alice 1000 1000 [4 50 1000] " + plain, "c": "alice 1000 1000 [4 50 1000] " + plain,
		"env":    "alice 1000 1000 [4 50 1000] [A=x HOME=/srv LOGNAME=alice PATH=/usr/local/bin:/usr/bin:/bin SHELL=/bin/sh USER=alice]",
		"groups": "alice 1000 1000 [50] " + plain, "group": "alice 1000 50 [4 50] " + plain, "uid": "1000 1000 1000 [4 50 1000] " + plain,
	} {
		e := rows[id].Exec
		if got := fmt.Sprint(e.Cred.User, " ", e.Cred.UID, " ", e.Cred.GID, " ", e.Cred.Groups, " ", e.Env); got != want {
			t.Errorf("row %s\nis   %s\nwant %s", id, got, want)
		}
	}
}

// TestLongLists: a repetition is found wherever in a list it stands.
func TestLongLists(t *testing.T) {
	_, _, err := compile(t, `
[service.a]
listen = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "3", "9"]
protocol = "tcp4"
exec = "/bin/a"
user = "alice"
`, asRoot())
	want := `t.toml:3:62: row "a": listen: 0.0.0.0:3 is in this list already; take one out
t.toml:3:67: row "a": listen: 0.0.0.0:9 is in this list already; take one out`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

// TestForget: what a row takes from [defaults] is taken back, whatever it is.
func TestForget(t *testing.T) {
	var d Service
	forgets(t, serviceKeys, &d)
	forgets(t, accessKeys, &d.Access)
	forgets(t, limitsKeys, &d.Limits)
	forgets(t, rlimitKeys, &d.Rlimits)
}

func forgets[T any](t *testing.T, keys []key[T], v *T) {
	for _, k := range keys {
		field := k.field(v)
		reflect.ValueOf(field).Elem().FieldByName("Pos").Set(reflect.ValueOf(Pos{"t.toml", 1, 1}))
		if !written(field).IsSet() {
			t.Errorf("%s is not written", k.name)
		}
		switch field.(type) {
		case *Access, *Limits, *Rlimits, *Env: // key by key, or in a copy
		default:
			if forget(field); written(field).IsSet() {
				t.Errorf("%s is not forgotten", k.name)
			}
		}
	}
}
