// What is done about those who try names: the table [server.scan], and the
// control socket, by which an administrator looks at it.

package config

import (
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

const (
	defaultScanNames   = 10
	maxScanNames       = 256 // a source that is watched costs 40 bytes for each
	defaultScanWithin  = time.Minute
	defaultScanHold    = 10 * time.Minute
	maxScanHold        = 720 * time.Hour
	defaultScanSources = 1 << 16
	maxScanSources     = 1 << 20
	defaultTarpit      = 64
	maxTarpit          = 4096
	// maxNftName is NFT_NAME_MAXLEN of linux/netfilter/nf_tables.h without its NUL.
	maxNftName = 255
)

// scanners compiles [server.scan]; nil if it is not there.
func (r *row) scanners() *service.Scan {
	s := &r.c.f.Server.Scan
	if !s.Pos.IsSet() {
		return nil
	}
	out := &service.Scan{
		Names:      int(r.number("scan.names", s.Names, defaultScanNames, 1, maxScanNames)),
		Within:     r.duration("scan.within", s.Within, defaultScanWithin, time.Second, 24*time.Hour, 0),
		Hold:       r.duration("scan.hold", s.Hold, defaultScanHold, time.Second, maxScanHold, 0),
		Sources:    int(r.number("scan.sources", s.Sources, defaultScanSources, 16, maxScanSources)),
		TarpitMost: int(r.number("scan.tarpit_most", s.TarpitMost, defaultTarpit, 1, maxTarpit)),
		NftSet:     r.nftSet("scan.nft_set", s.NftSet),
		NftSetV6:   r.nftSet("scan.nft_set_v6", s.NftSetV6),
	}
	out.Action = choose(r, "scan.action", s.Action, []choice[service.ScanAction]{{"refuse", service.ScanRefuse}, {"tarpit", service.ScanTarpit}})
	if s.TarpitMost.IsSet() && out.Action != service.ScanTarpit && (!s.Action.IsSet() || s.Action.V == "refuse") {
		r.errorf("scan.tarpit_most", s.TarpitMost.Pos, "nobody is held open without a tarpit; write action = \"tarpit\" beside it, or take it out")
	}
	var l limit.Limits
	for _, p := range r.prefixes("scan.exempt", s.Exempt, nil) {
		// What is held off is a source as a whole, so that nobody in it can be
		// an exception unless all of it is one.
		if src := l.Source(p.Addr()).Prefix(); p.Bits() > src.Bits() {
			p = src
		}
		out.Exempt = append(out.Exempt, p)
	}
	slices.SortFunc(out.Exempt, netip.Prefix.Compare)
	out.Exempt = slices.Compact(out.Exempt)
	return out
}

// nftSet reads "FAMILY TABLE SET".
func (r *row) nftSet(key string, s String) (set service.NftSet) {
	if !s.IsSet() {
		return set
	}
	words := strings.Fields(s.V)
	families := []string{"ip", "ip6", "inet", "netdev", "bridge"}
	switch {
	case len(words) != 3:
		r.errorf(key, s.Pos, "%s is no set; write its family, table and name, such as \"inet filter tcpmuxd4\", instead", clip(s.V))
	case !slices.Contains(families, words[0]):
		r.errorf(key, s.Pos, "%s is no family; write %s instead", clip(words[0]), either(families))
	case len(words[1]) > maxNftName || len(words[2]) > maxNftName:
		r.errorf(key, s.Pos, "a name of more than %d bytes; nftables has no such names", maxNftName)
	case strings.ContainsRune(s.V, 0):
		r.errorf(key, s.Pos, "a string with a NUL in it; write the names without one instead")
	default:
		set = service.NftSet{Family: words[0], Table: words[1], Set: words[2]}
	}
	return set
}

// control checks the path of the control socket.
func (r *row) control() string {
	s := r.c.f.Server.Control
	if !s.IsSet() || !r.plain("control", s, maxSocketPath, "the path of a socket such as \"/run/tcpmuxd/control.sock\"") {
		return ""
	}
	if !path.IsAbs(s.V) || strings.HasSuffix(s.V, "/") {
		r.errorf("control", s.Pos, "%s is no whole path of a socket; write one such as \"/run/tcpmuxd/control.sock\" instead", clip(s.V))
		return ""
	}
	return path.Clean(s.V)
}

// sensor checks a row that only serves to catch scanners.
func (r *row) sensor() {
	b := r.text.Builtin
	if r.svc.Builtin != service.BuiltinSensor || r.isDefaults() {
		return
	}
	if r.style == dgram {
		r.errorf("builtin", b.Pos, "a sensor of datagrams would let anybody have others held off, because a sender can be forged; write socket = \"stream\", or take the row out")
	}
	if !r.c.f.Server.Scan.Pos.IsSet() && !r.c.f.Server.Bad["scan"] {
		r.errorf("builtin", b.Pos, "a sensor has whom it catches held off, and nothing says for how long; write [server.scan] in the main file")
	}
	r.svc.Hidden = true // nobody may have it
	r.without("a sensor serves nobody, so there is nothing to limit", names(limitsKeys)...)
}
