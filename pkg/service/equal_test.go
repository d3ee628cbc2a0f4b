package service

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/access/hosts"
)

// hostsOf are the rules of a hosts.deny.
func hostsOf(deny string) *hosts.Daemon {
	d, _ := hosts.Read("/etc", func(string) ([]byte, error) { return []byte(deny), nil }).For("x")
	return d
}

// full is a row with something in every field that is a pointer or a list.
func full(t *testing.T) *Service {
	t.Helper()
	rules, err := access.New([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Service{
		ID: "x", Listen: []Endpoint{{}}, ListenOrigin: []Place{{}}, RPC: &RPC{},
		Exec: &Exec{
			Argv: []string{"a"}, Env: []string{"A=b"}, Cred: &Cred{Groups: []uint32{1}},
			Rlimits: []Rlimit{{}}, Nice: new(1), IOPrio: &IOPrio{}, OOMScoreAdj: new(1), CPUs: []int{1},
		},
		Forward: &Forward{Targets: []Target{{}}}, ProxyFrom: rules,
		Access: rules, Users: access.NewUsers([]uint32{1}, []uint32{2}),
		Interfaces: []string{"lo"}, Locals: rules, Hours: access.NewHours([]access.Span{{From: 1, To: 2}}, time.UTC, ""),
		Hosts: hostsOf(""),
	}
}

// TestEqual: whatever differs of two rows makes them differ, in every field
// there is, but for where they are written.
func TestEqual(t *testing.T) {
	if !full(t).Equal(full(t)) {
		t.Fatal("a row is not the same as its like")
	}
	places := 0
	for i := range changes(reflect.ValueOf(full(t)).Elem(), "", nil) {
		sv := full(t)
		what := ""
		n := 0
		changes(reflect.ValueOf(sv).Elem(), "", func(path string, v reflect.Value) {
			if n == i {
				what = path
				change(t, path, v)
			}
			n++
		})
		place := strings.HasPrefix(what, ".Origin") || strings.HasPrefix(what, ".ListenOrigin")
		if place {
			places++
		}
		if got := sv.Equal(full(t)); got != place {
			t.Errorf("%s: equal is %v", what, got)
		}
		if got := full(t).Equal(sv); got != place {
			t.Errorf("%s: equal is %v the other way round", what, got)
		}
	}
	if places < 4 {
		t.Errorf("only %d fields are places", places)
	}
}

func TestEqualButAccess(t *testing.T) {
	a, b := full(t), full(t)
	b.Access, b.Users, b.Interfaces, b.Locals, b.Hours, b.Hosts = nil, nil, nil, nil, nil, nil
	if !a.EqualButAccess(b) || a.Equal(b) || !b.EqualButAccess(a) {
		t.Error("access is not all that may differ")
	}
	b.Limits.Instances++
	if a.EqualButAccess(b) {
		t.Error("a limit is access")
	}
}

// changes calls f for everything in v that can be changed, and counts it.
func changes(v reflect.Value, path string, f func(string, reflect.Value)) (n int) {
	visit := func() {
		n++
		if f != nil {
			f(path, v)
		}
	}
	switch {
	case v.Type() == reflect.TypeFor[netip.AddrPort](), v.Type() == reflect.TypeFor[*access.Rules](), v.Type() == reflect.TypeFor[*access.Hours](), v.Type() == reflect.TypeFor[*hosts.Daemon]():
		visit()
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			n += changes(v.Field(i), path+"."+v.Type().Field(i).Name, f)
		}
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			n += changes(v.Elem(), path, f)
		}
		visit()
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			n += changes(v.Index(i), fmt.Sprintf("%s[%d]", path, i), f)
		}
		visit()
	default:
		visit()
	}
	return n
}

func change(t *testing.T, path string, v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[netip.AddrPort]():
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("192.0.2.1:1")))
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			t.Errorf("%s is not filled in, so that the test does not see it", path)
			return
		}
		v.SetZero()
	case v.Kind() == reflect.Slice:
		if v.Len() == 0 {
			t.Errorf("%s is not filled in, so that the test does not see it", path)
			return
		}
		v.Set(v.Slice(0, v.Len()-1))
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case v.CanUint():
		v.SetUint(v.Uint() + 1)
	case v.CanFloat():
		v.SetFloat(v.Float() + 1)
	default:
		t.Errorf("%s: a %s is not known to this test", path, v.Type())
	}
}
