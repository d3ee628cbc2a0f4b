package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// This file is the table of the attacks, and how each server is set up for them:
// with what its manual offers against them, except where a variant says otherwise.

const (
	few  = 8
	many = siegeCount

	fewSources  = "few sources"
	manySources = "many sources"
	shipped     = "many sources, limits as shipped"

	helpRows = 100
)

// refusedNames are of one length, because a longer one takes longer: one that
// there is not, one that the peer may not have, one that is closed.
var refusedNames = []string{"unknown0", "denied00", "disabled"}

// underAttack are those that know TCPMUX.
var underAttack = []string{oursName, "xinetd", "inetutils-inetd"}

func siege(drips bool) []variant {
	return []variant{
		{name: fewSources, sources: few, drips: drips, ours: true},
		{name: manySources, sources: many, drips: drips, ours: drips},
		{name: shipped, sources: many, drips: drips, shipped: true, ours: drips},
	}
}

var attacks = []scenario{
	{name: "greedy", title: "one source at 50 times its rate over TCPMUX, an honest one within it",
		work: mux, load: connections, child: "tiny", only: underAttack, attack: true,
		more: flooded(flood{asking: asking{sources: 1, rate: attackRate, count: 1 << 20, most: 256, request: muxName, want: "ok\n"}})},
	{name: "greedy-direct", title: "the same on a port of its own",
		work: spawn, load: connections, child: "tiny", only: underAttack, attack: true,
		more: flooded(flood{asking: asking{sources: 1, rate: attackRate, count: 1 << 20, most: 256, want: "ok\n"}})},
	{name: "silent", title: fmt.Sprintf("%d connections to the multiplexer that say nothing", siegeCount),
		work: mux, load: connections, child: "tiny", only: underAttack, attack: true, variants: siege(false), more: besieged},
	{name: "dripping", title: fmt.Sprintf("%d connections to the multiplexer that say a byte every %v", siegeCount, dripEvery),
		work: mux, load: connections, child: "tiny", only: underAttack, attack: true, variants: siege(true), more: besieged},
	{name: "scan", title: "one source asks for 10000 names that there are not, an honest one for what there is",
		work: mux, load: connections, child: "tiny", only: underAttack, attack: true,
		more: flooded(flood{asking: asking{sources: 1, rate: attackRate, count: 10000, most: 64, request: "name%"}})},
	{name: "help", title: fmt.Sprintf("one source asks for HELP, which lists %d services, an honest one for one of them", helpRows+1),
		work: mux, load: connections, child: "tiny", only: underAttack, attack: true,
		more: flooded(flood{asking: asking{sources: 1, rate: attackRate, count: 1 << 20, most: 64, request: "HELP"}})},
	{name: "refusals", title: fmt.Sprintf("the time of %d answers for names that are unknown, denied and closed, by turns", refusalAsks),
		work: mux, load: connections, child: "tiny", only: underAttack[:2], attack: true, more: refusals},
}

var attackBars = []bar{
	{what: servedName, scenario: "greedy", least: 100},
	{what: slowerName, scenario: "greedy", most: 2},
	{what: servedName, scenario: "greedy-direct", least: 100},
	{what: slowerName, scenario: "greedy-direct", most: 2},
	{what: servedName, scenario: "scan", least: 100},
	{what: slowerName, scenario: "scan", most: 2},
	{what: mostShownName, scenario: "scan", most: scanNames},
	{what: servedName, scenario: "help", least: 100},
	{what: slowerName, scenario: "help", most: 2},
	{what: betweenName, scenario: "refusals", most: 1},
}

func init() {
	for _, scenario := range []string{"silent", "dripping"} {
		for _, variant := range []string{fewSources, manySources, shipped} {
			attackBars = append(attackBars, bar{what: servedName, scenario: scenario, variant: variant, least: 100},
				bar{what: slowerName, scenario: scenario, variant: variant, most: 3},
				bar{what: perPendingName, scenario: scenario, variant: variant, most: 1024})
			if variant != shipped { // those that have to go come again, 1000 a second
				attackBars = append(attackBars, bar{what: spawnsName, scenario: scenario, variant: variant, least: 0.9})
			}
		}
	}
}

const (
	ownRate   = 100 // a second for each source, where that is limited
	scanNames = 10
)

// attackedTcpmuxd holds all of a siege, where limits are not as shipped: that is
// what costs it most.
func attackedTcpmuxd(path string, t task) ([]string, error) {
	var server, muxKeys, keys, more strings.Builder
	row := func(name, keys string) {
		fmt.Fprintf(&more, "\n[service.\"tcpmux/+%s\"]\nuser = \"root\"\nexec = [%q]\n%s", name, t.child, keys)
	}
	switch t.scenario {
	case "greedy", "greedy-direct":
		fmt.Fprintf(&keys, "limits.rate_per_source = \"%d/s\"\n", ownRate)
	case "silent", "dripping":
		if !t.shipped {
			muxKeys.WriteString("timeout = \"1h\"\nlimits = { instances = 16384, instances_per_source = 16384 }\n")
		}
	case "scan":
		fmt.Fprintf(&server, "[server.scan]\nnames = %d\n", scanNames)
	case "help":
		fmt.Fprintf(&server, "[server.limits]\nrate_per_source = \"%d/s\"\n", ownRate)
		for i := range helpRows {
			row(fmt.Sprintf("row%d", i), "")
		}
	case "refusals":
		server.WriteString("[server.scan]\nnames = 256\n")
		row(refusedNames[1], "access.deny = [\"127.0.0.0/8\"]\n")
		row(refusedNames[2], "enabled = false\n")
	}
	text := fmt.Sprintf("%s\n[service.tcpmux]\nlisten = \"%s:%d\"\nbuiltin = \"tcpmux\"\n%s", server.String(), addr, t.port, muxKeys.String())
	if t.work == spawn {
		text = fmt.Sprintf("%s\n[service.direct]\nlisten = \"%s:%d\"\nuser = \"root\"\nexec = [%q]\n%s", server.String(), addr, t.port, t.child, keys.String())
	} else {
		row(muxName, keys.String())
	}
	file, err := t.write("tcpmuxd.toml", text+more.String())
	return []string{path, "-c", file}, err
}

// attackedXinetd has a number of instances for each source, which is all that it
// can tell sources by: cps stops a whole service, for the honest ones, too.
func attackedXinetd(path string, t task) ([]string, error) {
	var b strings.Builder
	switch {
	case t.shipped:
	case t.scenario == "silent" || t.scenario == "dripping":
		b.WriteString("defaults\n{\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n\tcps = 1000000000 1\n}\n")
	default:
		b.WriteString("defaults\n{\n\tinstances = UNLIMITED\n\tper_source = 20\n\tcps = 1000000000 1\n}\n")
	}
	service := func(name string, keys ...string) {
		common := []string{"socket_type = stream", "protocol = tcp", "wait = no", "user = root", "flags = NOLIBWRAP"}
		fmt.Fprintf(&b, "service %s\n{\n\t%s\n}\n", name, strings.Join(append(common, keys...), "\n\t"))
	}
	named := func(name string, keys ...string) {
		service(name, append([]string{"type = TCPMUXPLUS UNLISTED", "server = " + t.child}, keys...)...)
	}
	listen := fmt.Sprintf("port = %d\n\tbind = %s", t.port, addr)
	if t.work == spawn {
		service("direct", "type = UNLISTED", listen, "server = "+t.child)
	} else {
		service("tcpmux", "type = INTERNAL UNLISTED", listen)
		named(muxName)
	}
	switch t.scenario {
	case "help":
		for i := range helpRows {
			named(fmt.Sprintf("row%d", i))
		}
	case "refusals":
		named(refusedNames[1], "no_access = 127.0.0.0/8")
		named(refusedNames[2], "disable = yes")
	}
	file, err := t.write("xinetd.conf", b.String())
	return []string{path, "-dontfork", "-f", file, "-pidfile", filepath.Join(t.dir, "pid"), "-filelog", filepath.Join(t.dir, "xinetd.log")}, err
}

// attackedInetutils can only limit what a service starts in a minute, and stops it
// for all then: that is lifted.
func attackedInetutils(path string, t task) ([]string, error) {
	var b strings.Builder
	b.WriteString("tcpmux stream tcp nowait root internal\n")
	name := func(name string) {
		fmt.Fprintf(&b, "tcpmux/+%s stream tcp nowait root %s %s\n", name, t.child, filepath.Base(t.child))
	}
	name(muxName)
	if t.scenario == "help" {
		for i := range helpRows {
			name(fmt.Sprintf("row%d", i))
		}
	}
	file, err := t.write("inetd.conf", b.String())
	argv := []string{path, "--pidfile=" + filepath.Join(t.dir, "pid"), file}
	if !t.shipped {
		argv = append([]string{path, "-R", "1000000000"}, argv[1:]...)
	}
	return argv, err
}
