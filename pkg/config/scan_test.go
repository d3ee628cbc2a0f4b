package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func TestPlaces(t *testing.T) {
	text := "a = 1\r\n" +
		"\t\"b c\" . d = [ 'x', # comment ]\n  [2, {e = 3}] ] # end\n" +
		"[t . \"u\\u002dv\"]\n" +
		"m = \"\"\"\n\\\" \"\" \n\"\"\"\"\"\n" +
		"l = '''\n'' ' '''''\n" +
		"é.ü = {x = 1, y.z = 1979-05-27 07:32:00, # nl\n w = [],}\n" +
		"[[arr]]\nk = 1\n[arr.sub]\nq = 1\n[[arr]]\nk = 2\n"
	text = strings.Replace(text, "é.ü", `"é"."ü"`, 1)
	root, plain, _, err := scan(text)
	if plain {
		t.Error("this is not plain")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := toml.Unmarshal([]byte(text), &map[string]any{}); err != nil {
		t.Fatalf("the test itself is wrong: %v", err)
	}
	var got []string
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		for _, k := range n.kids {
			p := path + "/" + k.name
			got = append(got, fmt.Sprintf("%s %d:%d %d:%d", p, k.pos.Line, k.pos.Col, k.val.Line, k.val.Col))
			walk(p, k)
		}
		for i, e := range n.elems {
			p := fmt.Sprintf("%s[%d]", path, i)
			got = append(got, fmt.Sprintf("%s %d:%d", p, e.val.Line, e.val.Col))
			walk(p, e)
		}
	}
	walk("", root)
	want := `/a 1:1 1:5
/b c 2:2 2:2
/b c/d 2:10 2:14
/b c/d[0] 2:16
/b c/d[1] 3:3
/b c/d[1][0] 3:4
/b c/d[1][1] 3:7
/b c/d[1][1]/e 3:8 3:12
/t 4:2 4:2
/t/u-v 4:6 4:6
/t/u-v/m 5:1 5:5
/t/u-v/l 8:1 8:5
/t/u-v/é 10:1 10:1
/t/u-v/é/ü 10:5 10:11
/t/u-v/é/ü/x 10:12 10:16
/t/u-v/é/ü/y 10:19 10:19
/t/u-v/é/ü/y/z 10:21 10:25
/t/u-v/é/ü/w 11:2 11:6
/arr 12:3 12:3
/arr[0] 12:3
/arr[0]/k 13:1 13:5
/arr[0]/sub 14:6 14:6
/arr[0]/sub/q 15:1 15:5
/arr[1] 16:3
/arr[1]/k 17:1 17:5`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got:\n%s\nwant:\n%s", s, want)
	}
}

// covered reports the first path of v that n has no place for.
func covered(path string, n *node, v any) string {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			c := n.get(k)
			if c == nil || !c.pos.IsSet() || !c.val.IsSet() {
				return path + "/" + k
			}
			if p := covered(path+"/"+k, c, e); p != "" {
				return p
			}
		}
		// The library lets keys be put into an array (e = [], e.a = 1, e.b = 2), and
		// loses all but the last.
		if _, array := n.v.([]any); !array && len(n.kids) != len(v) {
			return path + " has keys that are not there"
		}
	case []any:
		if len(n.elems) != len(v) {
			return path + "[]"
		}
		for i, e := range v {
			if p := covered(fmt.Sprintf("%s[%d]", path, i), n.elems[i], e); p != "" {
				return p
			}
		}
	case []map[string]any:
		if len(n.elems) != len(v) {
			return path + "[[]]"
		}
		for i, e := range v {
			if p := covered(fmt.Sprintf("%s[%d]", path, i), n.elems[i], e); p != "" {
				return p
			}
		}
	}
	return ""
}

// made is the value of a node of a plain text, as the library would have it.
func made(n *node) any {
	switch n.v.(type) {
	case map[string]any:
		m := make(map[string]any)
		for _, k := range n.kids {
			m[k.name] = made(k)
		}
		return m
	case []any:
		l := make([]any, 0, len(n.elems))
		for _, e := range n.elems {
			l = append(l, made(e))
		}
		return l
	}
	return n.v
}

// TestPlain: what nearly all tables are made of is plain, so that they are read
// fast, and what may not be is not. That the values are right is FuzzScan's.
func TestPlain(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "# é\n\n a\t= \"é #\" # x": true, "a = 'C:\\'": true, "a=-12\nb=0\nc= true \nd=false#": true, "a = 'x\ty'": true,
		"[a]\n[b.c]\nx.y = 1\nx.z = 2\n[b.\"c/+d\".'e']\n[b.f]": true, "a = [ 'x', # y\n\n \"z\",\n[], [1,2]]": true,
		"a = { b = 1, c.d = [2], c.e = {} }": true, "[a]\n[a.b]\n": true,

		"a = \"\\u0041\"": false, "a = \"\"\"x\"\"\"": false, "a = '''x'''": false, "a = 1\r\n": false, "a = 'x\x01y'": false,
		"# \x7f": false, "# \xff": false, "a = 1_0": false, "a = +1": false, "a = -0": false, "a = 01": false, "a = 0x1": false, "a = 1.0": false,
		"a = 1979-05-27": false, "a = truely": false, "a = 1 2": false, "a = 9999999999999999999": false, "a = 1 b = 2": false, "a = [1] [b]": false,
		"a = 1\na = 2": false, "a.b = 1\n[a]": false, "a.b = 1\n[a.c]": false, "[a.b]\n[a]": false, "[a]\n[a]": false, "[a]\nb = 1\n[a.b]": false,
		"[a]\nb = 1\nb.c = 2": false, "a = {b = 1}\na.c = 1": false, "a = {}\n[a.b]": false, "a = {b = 1, b = 2}": false, "a = {b = 1,}": false,
		"a = {\nb = 1}": false, "a = [{b = 1}]": false, "[[a]]": false, "[ a ]": false, "[a . b]": false, "[a]]": false, "[a": false, "[a]b = 1": false,
		"a . b = 1": false, "é = 1": false, "a b = 1": false, "\"\" = 1": false, "\"\\u0041\" = 1": false, "a = [1 2]": false, "a =": false, "a = [1,,2]": false,
	} {
		_, plain, _, err := scan(text)
		if plain != want {
			t.Errorf("%q: plain is %v, %v", text, plain, err)
		}
		values := make(map[string]any)
		if err := toml.Unmarshal([]byte(text), &values); plain && err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	text, err := os.ReadFile("../../etc/tcpmuxd.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, plain, _, err := scan(string(text)); !plain {
		t.Errorf("etc/tcpmuxd.toml is not plain: %v", err)
	}
}

// FuzzScan: whatever the library accepts, the scanner has a place for every
// key and every element of. What it takes for plain, the library accepts, and
// makes the same of.
func FuzzScan(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		root, plain, offset, err := scan(strings.TrimPrefix(text, "\ufeff"))
		if offset < 0 || offset > len(text) {
			t.Fatalf("offset %d of %d", offset, len(text))
		}
		values := make(map[string]any)
		e := guarded(func() error { return toml.Unmarshal([]byte(text), &values) })
		if plain {
			if e != nil {
				t.Fatalf("plain, and the library says: %v", e)
			}
			if v := made(root); !reflect.DeepEqual(v, any(values)) {
				t.Fatalf("made %v, the library %v", v, values)
			}
		}
		if e != nil || err == errDepth {
			return
		}
		if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
			return // the library drops these; no editor writes them before UTF-8
		}
		if err != nil {
			t.Fatalf("the library reads it, scan says: %v", err)
		}
		if p := covered("", root, values); p != "" {
			t.Fatalf("no place for %s", p)
		}
	})
}

// FuzzCompile: no text makes Parse and Compile panic, and the same text gives
// the same answer.
func FuzzCompile(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		passed := asRoot()
		passed.Passed = []service.Passed{given(3, "ftp", "dual [::]:21"), given(4, "", "tcp4 127.0.0.1:99"), given(5, "tftp", "udp4 0.0.0.0:69"),
			given(6, "", "unix /run/a"), given(7, "x.socket", "dual-udp [::]:37")}
		for _, o := range []*Options{asRoot(), asAlice(), passed} {
			var out [2]string
			for i := range out {
				file, include := Parse("f", text)
				table, warnings, err := Compile(file, o)
				if (table == nil) == (err == nil) {
					t.Fatalf("table %v, error %v", table, err)
				}
				out[i] = fmt.Sprint(include) + dump(table, warnings, err)
				if table != nil {
					for _, s := range table.Services {
						if problem := insane(s); problem != "" {
							t.Fatalf("row %q: %s: %+v", s.ID, problem, s)
						}
					}
				}
				for _, p := range file.Problems {
					if !p.IsSet() || p.Text == "" || int(p.Line) > 1+strings.Count(text, "\n") {
						t.Fatalf("problem without a place: %v", p)
					}
				}
			}
			if out[0] != out[1] {
				t.Fatalf("first:\n%s\nthen:\n%s", out[0], out[1])
			}
		}
	})
}

// insane says what the rest of the program does not expect of a row.
func insane(s *service.Service) string {
	runs := 0
	for _, r := range []bool{s.Exec != nil, s.Builtin != service.BuiltinNone, s.Forward != nil} {
		if r {
			runs++
		}
	}
	switch {
	case runs != 1:
		return "runs more or less than one thing"
	case s.Mux != (len(s.Listen) == 0):
		return "by name, or somewhere"
	case s.Mux && (s.Name == "" || s.Wait || s.Builtin == service.BuiltinTCPMUX || s.Builtin != service.BuiltinNone && s.Builtin != service.BuiltinSensor && !s.Plus):
		return "is not for a name"
	case s.Wait && (s.Exec == nil || s.Limits.Instances < 1 || s.Limits.InstancesPerSource != 0 || s.Limits.RatePerSource.N != 0):
		return "cannot wait so"
	case len(s.Listen) != len(s.ListenOrigin):
		return "origins are missing"
	case s.Forward != nil && (len(s.Forward.Targets) == 0 || s.Forward.Timeout <= 0):
		return "goes nowhere"
	}
	heard := make(map[service.Endpoint]bool)
	for _, e := range s.Listen {
		n := e.Network
		access, users := s.Access != nil, s.Users != nil
		switch {
		case n.IP() != e.Addr.IsValid() || n.Unix() != (e.Path != "") || n.Vsock() != (e.Port != 0):
			return "no address of its kind"
		case n.IP() && (e.Addr.Addr().Is4In6() || e.Addr.Addr().Is6() != n.V6()):
			return "the address is of another family"
		case len(e.Path) > maxSocketPath+1:
			return "the path is too long"
		case heard[e]:
			return "is there twice"
		case styleOf(n) != styleOf(s.Listen[0].Network):
			return "several styles"
		case n.Unix() && access && !users, n.IP() && users && !access, n.Vsock() && (users || access), users && n.Unix() && (s.Wait || n.Dgram()):
			return "nobody judges " + e.String()
		case n == service.UnixDgram && !s.Wait:
			return "unix datagrams have no peer"
		case styleOf(n) != stream && (s.Forward != nil || s.Builtin == service.BuiltinTCPMUX):
			return "streams only"
		}
		heard[e] = true
	}
	return ""
}

func seed(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.toml")
	for _, name := range append(files, "../../etc/tcpmuxd.toml") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("e = []\ne.a = 1\ne.b = 2")
	f.Add("[a]\nb = 'x' # c\nc.d = [1, true]\nc.e = {f = -2}\n[a.\"g\"]\n")
	f.Add("a.\"b\\u0000\" = '''x'''''\n[[a]]\n[b.'c']\nd = {e = [1, [2,],],}")
}

// TestHostileNesting: the library recurses without bound, and would be killed
// by the runtime, which nothing can recover from.
func TestHostileNesting(t *testing.T) {
	const n = 2 << 20
	for name, text := range map[string]string{
		"arrays":          "a = " + strings.Repeat("[", n),
		"tables":          "a = " + strings.Repeat("{a=", n),
		"dotted":          strings.Repeat("a.", n) + "a = 1",
		"dotted header":   "[" + strings.Repeat("a.", n) + "a]",
		"dotted in table": "a = {" + strings.Repeat("a.", n) + "a = 1}",
		"after an error":  "a = \x01\nb = " + strings.Repeat("[", n),
		"after a string":  "a = \"\n" + strings.Repeat("[", n),
		"mixed":           "a = " + strings.Repeat("[{a.b.c=", n/8),
	} {
		start := time.Now()
		f, _ := Parse("f", text)
		if len(f.Problems) != 1 {
			t.Errorf("%s: problems %v", name, f.Problems)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
}

// TestLargeFiles: the work grows no faster than the text, whatever is in it (a
// quadratic step anywhere takes minutes here).
func TestLargeFiles(t *testing.T) {
	const size = 1 << 20
	repeat := func(format string) string {
		var b bytes.Buffer
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, format, i, i%60000+2000, i%250)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"rows":         repeat("[service.s%d]\nlisten = \"127.1.%[3]d.1:%[2]d\"\nexec = \"/bin/a\"\nuser = \"alice\"\n"),
		"unknown keys": "[service.a]\n" + repeat("key-%d = %[1]d # %[2]d %[3]d\n"),
		"one line":     "a = {" + strings.TrimSuffix(repeat("k%d = %[2]d, "), ", ") + "}",
		"one list":     "[service.a]\nexec = \"/bin/a\"\nuser = \"root\"\nlisten = [" + repeat("\"127.0.%[3]d.1:%[2]d\",") + "]",
		"prefixes":     "[service.a]\nexec = \"/bin/a\"\nuser = \"root\"\nlisten = \"1\"\naccess.deny = [" + repeat("\"2001:db8:%[3]x:%[1]x::/64\",") + "]",
		"comment":      "#" + strings.Repeat("x", size),
		"string":       "a = \"" + strings.Repeat("x", size) + "\"",
		"newlines":     strings.Repeat("\n", size),
		"quotes":       "a = " + strings.Repeat("\"", size),
		"escaped keys": repeat("\"\\u0041%d\" = %d # %d\n"),
	} {
		start := time.Now()
		f, _ := Parse("f", text)
		read := time.Since(start)
		_, _, err := Compile(f, asRoot())
		n := 0
		if err != nil {
			n = strings.Count(err.Error(), "\n") + 1
		}
		t.Logf("%-14s read %v, compiled %v, %d problems", name, read.Round(time.Millisecond), (time.Since(start) - read).Round(time.Millisecond), n)
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%s took %v", name, d)
		}
	}
}
