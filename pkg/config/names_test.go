package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// namesOf makes Options that know these names, and counts who is asked for.
func namesOf(known map[string]string, asked map[string]int) *Options {
	o := asRoot()
	o.Host = func(name string) ([]netip.Addr, error) {
		asked[name]++
		text, ok := known[name]
		switch {
		case !ok:
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		case text == "timeout":
			return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
		case text == "broken":
			return nil, errors.New("broken")
		}
		var list []netip.Addr
		for a := range strings.FieldsSeq(text) {
			list = append(list, netip.MustParseAddr(a))
		}
		return list, nil
	}
	return o
}

// TestNames: a row listens on all addresses of a name that its protocol has.
func TestNames(t *testing.T) {
	asked := make(map[string]int)
	o := namesOf(map[string]string{
		"both.example": "2001:db8::1 192.0.2.2 192.0.2.1 192.0.2.1", "four": "192.0.2.9", "mapped": "::ffff:192.0.2.5",
		"any": "0.0.0.0", "six": "2001:db8::6 fe80::6", "slow": "timeout", "broken": "broken",
	}, asked)
	for _, tt := range []struct{ protocol, listen, want string }{
		{"tcp", `"both.example:80"`, "192.0.2.1:80 192.0.2.2:80 [2001:db8::1]:80"},
		{"tcp4", `"Both.Example.:80"`, "192.0.2.1:80 192.0.2.2:80"},
		{"tcp6", `"both.example:80"`, "[2001:db8::1]:80"},
		{"udp", `"four:80-82"`, "192.0.2.9:80 192.0.2.9:81 192.0.2.9:82"},
		{"tcp", `"mapped:80", "192.0.2.5:81", "mapped:81"`, "192.0.2.5:80 192.0.2.5:81"},
		{"tcp", `"six:80"`, "[2001:db8::6]:80"},
		{"tcp", `"LOCALHOST:80"`, "127.0.0.1:80 [::1]:80"},
		{"tcp6", `"localhost:80"`, "[::1]:80"},
		{"tcp", `"four:80", "192.0.2.9:80"`, `192.0.2.9:80 is in this list already; take one out`},
		{"tcp6", `"four:80"`, `the host "four" has no address that a row with protocol "tcp6" could have; write an address or another protocol`},
		{"tcp", `"any:80"`, `the host "any" has the address 0.0.0.0, which is none of a host; write an address instead`},
		{"tcp", `"none:80"`, `the host "none" is unknown; write an address instead`},
		{"tcp", `"slow:80"`, `the host "slow" cannot be looked up: no name server answers in time; write an address instead`},
		{"tcp", `"broken:80"`, `the host "broken" cannot be looked up: broken; write an address instead`},
		{"tcp", `"a_b.-c:80"`, `"a_b.-c:80" begins with "a_b.-c", which is neither an address nor a name of a host; write "ADDRESS:PORT" instead`},
	} {
		text := fmt.Sprintf("[service.a]\nprotocol = %q\nlisten = [%s]\nexec = \"/bin/a\"\nuser = \"root\"\nwait = true\n", tt.protocol, tt.listen)
		if tt.protocol == "udp" {
			text += "socket = \"dgram\"\n"
		}
		table, _, err := compile(t, text, o)
		got := ""
		switch {
		case err != nil:
			got = strings.TrimPrefix(err.Error()[strings.Index(err.Error(), "listen: "):], "listen: ")
		default:
			var all []string
			for _, e := range table.Services[0].Listen {
				all = append(all, e.String())
			}
			got = strings.Join(all, " ")
		}
		if got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.protocol, tt.listen, got, tt.want)
		}
	}
	if asked["localhost"] > 0 {
		t.Error("localhost is asked for")
	}
}

// TestNamesChange: a reload asks again, and goes on with what it knew where nobody can
// be asked; a change of users does not ask.
func TestNamesChange(t *testing.T) {
	known, asked := map[string]string{"h": "192.0.2.1"}, make(map[string]int)
	o := namesOf(known, asked)
	source := func(*Disk) *File {
		f, _ := Parse("t.toml", "[service.a]\nlisten = [\"h:80\", \"h:81\"]\nexec = \"/bin/a\"\nuser = \"root\"\n")
		return f
	}
	at := func(r *Reading) string {
		t.Helper()
		if r.Err != nil {
			return r.Err.Error()
		}
		return r.Table.Services[0].Listen[0].String()
	}
	r := Read(source, o)
	if at(r) != "192.0.2.1:80" || asked["h"] != 1 {
		t.Fatalf("%s, asked %d times", at(r), asked["h"])
	}
	if r.Read(o) != r {
		t.Error("nothing has changed, and it is read again")
	}
	known["h"] = "timeout"
	slow := r.Read(o)
	if at(slow) != "192.0.2.1:80" || len(slow.Warnings) != 2 || !strings.Contains(slow.Warnings[0].Text, "it stays on the addresses it had") {
		t.Errorf("%s, warnings %v", at(slow), slow.Warnings)
	}
	known["h"] = "192.0.2.2"
	users, was := *o, asked["h"]
	users.VanishedUsers = true
	if slow.Compile(&users) != slow || asked["h"] != was {
		t.Error("a change of users asks for names")
	}
	users.Environ = []string{"CHANGED=1"}
	same := slow.Compile(&users)
	if at(same) != "192.0.2.1:80" || asked["h"] != was {
		t.Errorf("%s, asked %d times more", at(same), asked["h"]-was)
	}
	if moved := same.Read(o); at(moved) != "192.0.2.2:80" {
		t.Errorf("after a reload it is %s", at(moved))
	}
	delete(known, "h")
	if gone := r.Read(o); gone.Err == nil || !strings.Contains(gone.Err.Error(), `the host "h" is unknown`) {
		t.Errorf("a name that is gone: %v", gone.Err)
	}
}

// TestLookupHost: the machine's own hosts(5) is asked, and nothing takes for ever.
func TestLookupHost(t *testing.T) {
	addrs, err := lookupHost()("localhost")
	if err != nil || !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().IsLoopback() }) {
		t.Errorf("localhost is %v, %v", addrs, err)
	}
	began := time.Now()
	if _, err := lookupHost()("host.invalid"); err == nil {
		t.Error("host.invalid is known")
	}
	if d := time.Since(began); d > 3*lookupTime {
		t.Errorf("it took %v", d)
	}
}
