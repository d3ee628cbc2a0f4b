package builtin

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func TestDaytime(t *testing.T) {
	for unix, want := range map[int64]string{
		1795393204: "Mon Nov 23 00:20:04 2026\r\n",
		0:          "Thu Jan  1 00:00:00 1970\r\n",
	} {
		if got := string(AppendDaytime(nil, time.Unix(unix, 0).UTC())); got != want {
			t.Errorf("%d is %q, want %q", unix, got, want)
		}
	}
}

func TestTime(t *testing.T) {
	for _, test := range []struct {
		at   time.Time
		want uint32
	}{
		// The examples of RFC 868, whose names for them are midnights GMT.
		{time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), 2208988800},
		{time.Date(1976, 1, 1, 0, 0, 0, 0, time.UTC), 2398291200},
		{time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), 2524521600},
		{time.Date(1983, 5, 1, 0, 0, 0, 0, time.UTC), 2629584000},
		{time.Date(2036, 2, 7, 6, 28, 15, 0, time.UTC), 1<<32 - 1},
		{time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC), 0},
	} {
		b := AppendTime(nil, test.at)
		if len(b) != 4 || binary.BigEndian.Uint32(b) != test.want {
			t.Errorf("%v is %x, want %x", test.at, b, test.want)
		}
	}
}

func TestPattern(t *testing.T) {
	p := Pattern()
	if len(p)%period != 0 {
		t.Fatal("the pattern does not go on where it begins")
	}
	for i := range len(p) / LineSize {
		line := p[i*LineSize:][:LineSize]
		if i < 200 && !bytes.Equal(line, Line(uint(i))) {
			t.Fatalf("line %d is %q", i, Line(uint(i)))
		}
		for j, c := range line[:72] {
			if want := ' ' + byte((i+j)%95); c != want {
				t.Fatalf("line %d has %q at %d, want %q", i, c, j, want)
			}
		}
		if string(line[72:]) != "\r\n" {
			t.Fatalf("line %d ends in %q", i, line[72:])
		}
	}
	// The first line of RFC 864's own example begins like this.
	if !strings.HasPrefix(string(p), ` !"#$%&'()*+,-./0123456789:;<=>?@ABC`) {
		t.Errorf("the pattern begins with %q", p[:40])
	}
}

func message(from, to, local string) *kernel.Message {
	m := &kernel.Message{}
	m.Peer, _ = netip.ParseAddrPort(from)
	m.To, _ = netip.ParseAddr(to)
	m.Local, _ = netip.ParseAddr(local)
	return m
}

func TestJudge(t *testing.T) {
	own := Ports{7777: true}
	for _, test := range []struct {
		from, to, local string
		want            Refusal
	}{
		{"192.0.2.1:1234", "192.0.2.9", "192.0.2.9", ""},
		{"127.0.0.1:1234", "127.0.0.1", "127.0.0.1", ""},
		{"[::1]:1234", "::1", "::1", ""},
		{"[2001:db8::1]:1234", "2001:db8::2", "2001:db8::2", ""},
		{"192.0.2.1:8", "192.0.2.9", "192.0.2.9", ""},
		{"192.0.2.1:7", "192.0.2.9", "192.0.2.9", RefusedLoop},
		{"192.0.2.1:9", "192.0.2.9", "192.0.2.9", RefusedLoop},
		{"192.0.2.1:13", "192.0.2.9", "192.0.2.9", RefusedLoop},
		{"192.0.2.1:17", "192.0.2.9", "192.0.2.9", RefusedLoop},
		{"127.0.0.1:19", "127.0.0.1", "127.0.0.1", RefusedLoop},
		{"[::1]:37", "::1", "::1", RefusedLoop},
		{"192.0.2.1:7777", "192.0.2.9", "192.0.2.9", RefusedLoop},
		{"192.0.2.1:0", "192.0.2.9", "192.0.2.9", RefusedSource},
		{"224.0.0.1:1234", "192.0.2.9", "192.0.2.9", RefusedSource},
		{"[ff02::1]:1234", "2001:db8::2", "2001:db8::2", RefusedSource},
		{"255.255.255.255:1234", "192.0.2.9", "192.0.2.9", RefusedSource},
		{"0.0.0.0:1234", "192.0.2.9", "192.0.2.9", RefusedSource},
		{"[::]:1234", "2001:db8::2", "2001:db8::2", RefusedSource},
		{"0.1.2.3:1234", "192.0.2.9", "192.0.2.9", RefusedSource},
		{"", "192.0.2.9", "192.0.2.9", RefusedSource},
		{"192.0.2.1:1234", "192.0.2.255", "192.0.2.9", RefusedBroadcast},
		{"192.0.2.1:1234", "255.255.255.255", "192.0.2.9", RefusedBroadcast},
		{"192.0.2.1:1234", "224.0.0.1", "192.0.2.9", RefusedBroadcast},
		{"[2001:db8::1]:1234", "ff02::1", "", RefusedBroadcast},
		{"192.0.2.1:1234", "", "", ""}, // a socket that does not tell
	} {
		if got := Judge(message(test.from, test.to, test.local), own); got != test.want {
			t.Errorf("from %s to %s: %q, want %q", test.from, test.to, got, test.want)
		}
	}
}

func TestPayload(t *testing.T) {
	now := func() time.Time { return time.Unix(1795393204, 0).UTC() }
	for b, want := range map[service.Builtin]string{
		service.BuiltinEcho: "question", service.BuiltinDiscard: "",
		service.BuiltinDaytime: "Mon Nov 23 00:20:04 2026\r\n",
		service.BuiltinTime:    string(AppendTime(nil, now())),
		service.BuiltinChargen: string(Line(0)),
	} {
		d := NewDatagrams()
		if got := string(d.payload(b, []byte("question"), now)); got != want {
			t.Errorf("%v answers %q, want %q", b, got, want)
		}
	}
}
