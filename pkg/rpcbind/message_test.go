package rpcbind

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var (
	four = Mapping{100001, 3, "udp", netip.MustParseAddrPort("0.0.0.0:40001")}
	six  = Mapping{300019, 1, "tcp6", netip.MustParseAddrPort("[fe80::1%eth0]:513")}
)

func TestUniversal(t *testing.T) {
	for m, want := range map[Mapping]string{
		four: "0.0.0.0.156.65",
		six:  "fe80::1.2.1",
		{Addr: netip.MustParseAddrPort("[::]:65535")}:  "::.255.255",
		{Addr: netip.MustParseAddrPort("127.0.0.1:1")}: "127.0.0.1.0.1",
	} {
		if got := m.Universal(); got != want {
			t.Errorf("%v: %q, want %q", m.Addr, got, want)
		}
	}
}

// words is hexadecimal without what is there to be read.
func words(s string) string { return strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s) }

// TestCall holds calls to the bytes of the RFCs 5531, 4506 and 1833.
func TestCall(t *testing.T) {
	for _, c := range []struct {
		version, proc uint32
		m             Mapping
		want          string
	}{
		{versionPortmap, procSet, four, `80000038 01020304 00000000 00000002 000186a0 00000002 00000001
			00000000 00000000 00000000 00000000 000186a1 00000003 00000011 00009c41`},
		{versionPortmap, procUnset, Mapping{1, 2, "tcp", six.Addr}, `80000038 01020304 00000000 00000002 000186a0 00000002 00000002
			00000000 00000000 00000000 00000000 00000001 00000002 00000006 00000201`},
		{versionRpcbind, procSet, four, `80000050 01020304 00000000 00000002 000186a0 00000003 00000001
			00000000 00000000 00000000 00000000 000186a1 00000003
			00000003 75647000 0000000e 302e302e 302e302e 3135362e 36350000 00000000`},
		{versionRpcbind, procUnset, six, `8000004c 01020304 00000000 00000002 000186a0 00000003 00000002
			00000000 00000000 00000000 00000000 000493f3 00000001
			00000004 74637036 0000000b 66653830 3a3a312e 322e3100 00000000`},
	} {
		got := appendCall([]byte("before"), 0x01020304, c.version, c.proc, c.m)
		if string(got[:6]) != "before" || hex.EncodeToString(got[6:]) != words(c.want) {
			t.Errorf("version %d, procedure %d:\n%s\nwant:\n%s", c.version, c.proc, hex.EncodeToString(got[6:]), words(c.want))
		}
	}
}

// replies are what may come back to a call 1, and what it means: "yes", "no" or a
// part of an error.
var replies = []struct{ hex, want string }{
	{"00000001 00000001 00000000 00000000 00000000 00000000 00000001", "yes"},
	{"00000001 00000001 00000000 00000000 00000000 00000000 00000000", "no"},
	{"00000001 00000001 00000000 00000001 00000005 0102030405000000 00000000 00000001", "yes"},
	{"00000001 00000001 00000000 00000000 00000000 00000000 00000002", "no truth value"},
	{"00000001 00000001 00000000 00000000 00000000 00000000 00000001 00", "1 bytes stand behind"},
	{"00000001 00000001 00000000 00000000 00000000 00000000 000000", "cut short"},
	{"00000001 00000001 00000000 00000000 00000000 00000000", "cut short"},
	{"00000001 00000001 00000000 00000000 00000004 00", "cut short"},
	{"00000001 00000001 00000000 00000000 00000191", "too long"},
	{"00000001 00000001 00000000 00000000 ffffffff", "too long"},
	{"00000001 00000001 00000000 00000000", "cut short"},
	{"00000001 00000001 00000000 00000000 00000000 00000001", "no rpcbind"},
	{"00000001 00000001 00000000 00000000 00000000 00000002 00000002 00000004", "versions 2 to 4"},
	{"00000001 00000001 00000000 00000000 00000000 00000002 00000002", "cut short"},
	{"00000001 00000001 00000000 00000000 00000000 00000003", "not register"},
	{"00000001 00000001 00000000 00000000 00000000 00000004", "not understand"},
	{"00000001 00000001 00000000 00000000 00000000 00000005", "in trouble"},
	{"00000001 00000001 00000000 00000000 00000000 00000006", "state 6"},
	{"00000001 00000001 00000001 00000001 00000005", "denied (1, 5)"},
	{"00000001 00000001 00000001 00000001", "cut short"},
	{"00000001 00000001 00000002", "neither accepted nor denied"},
	{"00000001 00000000 00000000", "no reply"},
	{"00000002 00000001 00000000 00000000 00000000 00000000 00000001", "another call"},
	{"", "cut short"},
}

func TestReply(t *testing.T) {
	for _, r := range replies {
		b, err := hex.DecodeString(words(r.hex))
		if err != nil {
			t.Fatal(err)
		}
		done, err := parseReply(b, 1)
		got := map[bool]string{true: "yes", false: "no"}[done]
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, r.want) || (err == nil) != (len(r.want) <= 3) {
			t.Errorf("%s: %s, want %s", r.hex, got, r.want)
		}
		if want := strings.HasPrefix(r.want, "versions"); errors.As(err, new(mismatch)) != want {
			t.Errorf("%s: a mismatch: %v", r.hex, !want)
		}
	}
}

func TestRecord(t *testing.T) {
	for in, want := range map[string]string{
		"80000002 6162":                            "ab",
		"00000001 61 80000001 62 80000001 63":      "ab",
		"00000001 61 80000000":                     "a",
		"80000000":                                 "",
		"00000000 80000001 61":                     "empty",
		"80000009 616263646566676869":              "more than 8",
		"00000008 6162636465666768 00000001 69":    "more than 8",
		"ffffffff":                                 "more than 8",
		"80000002 61":                              "EOF",
		"800000":                                   "EOF",
		"00000002 6162":                            "EOF",
		"80000008 6162636465666768 80000008 61626": "abcdefgh",
	} {
		in := words(in)
		b, err := hex.DecodeString(in[:len(in)&^1])
		if err != nil {
			t.Fatal(err)
		}
		record, err := readRecord(strings.NewReader(string(b)), make([]byte, 8))
		got := string(record)
		if err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// FuzzReply: whatever comes back is read or refused, and never more than a reply may
// have.
func FuzzReply(f *testing.F) {
	for _, r := range replies {
		b, _ := hex.DecodeString(words(r.hex))
		f.Add(append([]byte{0x80, 0, 0, byte(len(b))}, b...))
		f.Add(append([]byte{0, 0, 0, 1, 0, 0x80, 0, 0, byte(len(b))}, b...))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var room [maxReply]byte
		record, err := readRecord(strings.NewReader(string(stream)), room[:])
		if err != nil {
			return
		}
		if len(record) > maxReply || len(record) > len(stream) {
			t.Fatalf("a record of %d bytes from %d", len(record), len(stream))
		}
		done, err := parseReply(record, 1)
		if done && err != nil {
			t.Errorf("done, and %v", err)
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
