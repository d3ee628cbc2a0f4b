package service

import (
	"net/netip"
	"time"
)

// A Scan is what is done about sources that try names.
type Scan struct {
	Names      int           // so many names that a source may not have ...
	Within     time.Duration // ... within so long ...
	Hold       time.Duration // ... hold it off for so long
	Action     ScanAction
	TarpitMost int            // ScanTarpit: connections that are held open at most
	Exempt     []netip.Prefix // sorted; none is longer than a source
	Sources    int            // that are watched or held off at most

	// NftSet and NftSetV6 are where sources that are held off are written to;
	// the zero value: nowhere.
	NftSet, NftSetV6 NftSet
}

// ScanAction is what becomes of a source that is held off.
type ScanAction uint8

// The choices for ScanAction.
const (
	ScanRefuse ScanAction = iota // its connections are closed
	ScanTarpit                   // they are held open, and nothing is said
)

// An NftSet is a set of nftables, nft(8), by its names.
type NftSet struct{ Family, Table, Set string }

// String is the set as the configuration writes it.
func (n NftSet) String() string { return n.Family + " " + n.Table + " " + n.Set }
