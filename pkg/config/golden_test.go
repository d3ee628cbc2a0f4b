package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// TestGolden compiles testdata/*.good.toml and *.bad.toml, on the made-up
// machine as root, or as alice where the name has "alice" in it, and compares
// what comes out with the .txt beside it.
func TestGolden(t *testing.T) {
	testkit.Golden(t, "testdata/*.toml", func(t *testing.T, name, text string) string {
		o := asRoot()
		if strings.Contains(name, "alice") {
			o = asAlice()
		}
		if strings.Contains(name, "portable") {
			o.Native = false
		}
		f, _ := Parse(name, text)
		table, warnings, err := Compile(f, o)
		if good := strings.HasSuffix(name, ".good.toml"); good != (err == nil) {
			t.Errorf("good: %v, error:\n%v", good, err)
		}
		return dump(table, warnings, err)
	})
}

// dump writes everything Compile returns.
func dump(table *service.Table, warnings []*Problem, err error) string {
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintln(&b, "warning:", w)
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	if table == nil {
		return b.String()
	}
	sv := &table.Server
	fmt.Fprintf(&b, "server: {Grace:%v LogFormat:%v LogLevel:%v}\n", sv.Grace, sv.LogFormat, sv.LogLevel)
	if sv.Control != "" {
		fmt.Fprintln(&b, "control:", sv.Control)
	}
	if sv.Limits != (limit.Limits{}) {
		fmt.Fprintf(&b, "limits: %+v\n", sv.Limits)
	}
	if sv.Scan != nil {
		fmt.Fprintf(&b, "scan: %+v\n", *sv.Scan)
	}
	for _, s := range table.Services {
		row := *s
		row.Access, row.Locals, row.ProxyFrom, row.Hosts, row.Exec, row.Listen, row.ListenOrigin = nil, nil, nil, nil, nil, nil, nil
		fmt.Fprintf(&b, "\nrow %s\n%s\n", s.ID, brief(row))
		for i, e := range s.Listen {
			fmt.Fprintln(&b, "listen", e.Network, e, "of", s.ListenOrigin[i])
		}
		for p, v := range s.Access.All() {
			fmt.Fprintln(&b, v, p)
		}
		if s.Hosts != nil {
			_, rule := s.Hosts.Check(netip.MustParseAddr("203.0.113.1"), netip.Addr{})
			fmt.Fprintf(&b, "hosts %q\n", rule)
		}
		for p := range s.ProxyFrom.All() {
			fmt.Fprintln(&b, "proxy", p)
		}
		if s.Access != nil {
			fmt.Fprintln(&b, "otherwise", s.Access.Otherwise())
		}
		for p := range s.Locals.All() {
			fmt.Fprintln(&b, "local", p)
		}
		if s.Exec != nil {
			fmt.Fprintln(&b, brief(s.Exec))
		}
	}
	return b.String()
}

// brief is v in JSON without what is zero in it.
func brief(v any) string {
	out, _ := json.Marshal(v)
	var all any
	_ = json.Unmarshal(out, &all)
	var prune func(any) any
	prune = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				if v[k] = prune(e); v[k] == nil {
					delete(v, k)
				}
			}
			if len(v) == 0 {
				return nil
			}
		case []any:
			for i, e := range v {
				if e = prune(e); e != nil {
					v[i] = e
				}
			}
		case string:
			if v == "" {
				return nil
			}
		case float64:
			if v == 0 {
				return nil
			}
		case bool:
			if !v {
				return nil
			}
		}
		return v
	}
	out, _ = json.Marshal(prune(all))
	return string(out)
}
