package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const reference = "../../etc/tcpmuxd.toml"

// example is a line of the reference that is an example in a comment.
var example = regexp.MustCompile(`(?m)^#(\[|[a-z_0-9]+(?:\.[A-Za-z_0-9]+)* *=)`)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReference compiles the reference as it is, and with every example in it.
func TestReference(t *testing.T) {
	text := read(t, reference)
	rows := must(t, text, asRoot())
	if len(rows) != 2 || rows["tcpmux/+date"] == nil || rows["tcpmux"] == nil {
		t.Errorf("as it is: %v", rows)
	}
	rows = must(t, example.ReplaceAllString(text, "$1"), asRoot())
	if len(rows) != 11 || rows["auth"] == nil || rows["ftp"] == nil || rows["tftp"] == nil || rows["web"] == nil {
		t.Errorf("with every example: %v", rows)
	}
}

// keyNames are all keys, dotted below the row.
func keyNames() []string {
	all := append([]string{"include"}, names(serverKeys)...)
	all = append(all, names(setKeys)...)
	all = append(all, names(serviceKeys)...)
	for _, k := range names(scanKeys) {
		all = append(all, "scan."+k)
	}
	for _, k := range names(limitsKeys) {
		all = append(all, "limits."+k)
	}
	for _, k := range names(shedKeys) {
		all = append(all, "limits.shed."+k)
	}
	for _, k := range names(identKeys) {
		all = append(all, "ident."+k)
	}
	for _, k := range names(accessKeys) {
		all = append(all, "access."+k)
	}
	for _, k := range names(rlimitKeys) {
		all = append(all, "rlimits."+k)
	}
	for _, k := range names(keepaliveKeys) {
		all = append(all, "keepalive."+k)
	}
	for _, k := range names(rpcKeys) {
		all = append(all, "rpc."+k)
	}
	return all
}

// TestEveryKeyIsDocumented looks for every key that Parse knows in the
// reference and in the manual.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, man := read(t, reference), read(t, "../../cmd/tcpmuxd/tcpmuxd.toml.5")
	for _, k := range keyNames() {
		in := regexp.MustCompile(`(?m)^#?` + regexp.QuoteMeta(k) + `( *=|\.[a-zA-Z])`)
		for _, table := range []string{"keepalive", "limits.shed", "rpc"} {
			if last, ok := strings.CutPrefix(k, table+"."); ok {
				in = regexp.MustCompile(`(?m)^#?` + regexp.QuoteMeta(table) + ` = \{.*\b` + last + ` = `)
			}
		}
		if !in.MatchString(text) {
			t.Errorf("%s is not in %s", k, reference)
		}
		if !regexp.MustCompile(`(?m)^\.It (.* )?Ic ` + regexp.QuoteMeta(k) + `( ,.*)?$`).MatchString(man) {
			t.Errorf("%s is not in tcpmuxd.toml(5)", k)
		}
	}
	// Those of the daemon as a whole have a table, and a section, of their own.
	_, text, _ = strings.Cut(text, "#[server.limits]\n")
	text, _, _ = strings.Cut(text, "\n#[")
	_, man2, _ := strings.Cut(man, ".Ss The daemon as a whole\n")
	man2, _, _ = strings.Cut(man2, "\n.Ss")
	for _, k := range names(serverLimitsKeys) {
		if !regexp.MustCompile(`(?m)^#` + k + ` = `).MatchString(text) {
			t.Errorf("%s is not below [server.limits] in %s", k, reference)
		}
		if !regexp.MustCompile(`(?m)^\.It (.* )?Ic ` + k + `( ,.*)?$`).MatchString(man2) {
			t.Errorf("%s of [server.limits] is not in tcpmuxd.toml(5)", k)
		}
	}
	for _, v := range perConnection {
		if !strings.Contains(man, ".Ev "+v) {
			t.Errorf("%s is not in tcpmuxd.toml(5)", v)
		}
	}
}

// TestKeyExamples: the examples in messages are right themselves.
func TestKeyExamples(t *testing.T) {
	base := map[kind]string{
		execDirect:    "[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"\n",
		execMux:       "[service.\"tcpmux/a\"]\nexec = \"/bin/a\"\nuser = \"root\"\n",
		multiplexer:   "[service.ftp]\nbuiltin = \"tcpmux\"\n",
		builtinDirect: "[service.ftp]\nbuiltin = \"echo\"\n",
		builtinMux:    "[service.\"tcpmux/+a\"]\nbuiltin = \"echo\"\n",
		forwardDirect: "[service.ftp]\nforward = \"192.0.2.1:1\"\n",
		forwardMux:    "[service.\"tcpmux/a\"]\nforward = \"192.0.2.1:1\"\n",
	}
	for _, k := range serviceKeys {
		for kind, text := range base {
			if k.kinds&kind == 0 {
				continue
			}
			example := k.example
			switch {
			case k.name == "idle" && kind == execDirect || k.name == "broadcast":
				if kind&(execDirect|builtinDirect) == 0 {
					continue
				}
				text += "socket = \"dgram\"\nlisten = \"1000\"\n"
			case k.nets&tcpNets == 0 && k.nets != 0:
				text += "listen = \"/run/a\"\n"
			case k.name == "proxy_timeout":
				text += "proxy_from = \"192.0.2.10\"\n"
			case k.name == "builtin" && kind == builtinMux:
				example = `"echo"`
			case k.name == "ident":
				text = strings.Replace(text, `"echo"`, `"auth"`, 1)
			}
			line := regexp.MustCompile(`(?m)^` + k.name + ` = .*\n`)
			must(t, line.ReplaceAllString(text, "")+k.name+" = "+example+"\n", asRoot())
		}
	}
	for _, k := range limitsKeys {
		text := base[execDirect]
		if rate, ok := strings.CutPrefix(k.name, "burst"); ok {
			text += "limits.rate" + rate + " = \"1/s\"\n"
		}
		switch k.name {
		case "overflow_wait":
			text = base[execMux] + "limits.overflow = \"queue\"\n"
		case "exceeded":
			text += "limits.rate = \"1/s\"\n"
		case "suspend":
			text += "limits.rate = \"1/s\"\nlimits.exceeded = \"suspend\"\n"
		}
		must(t, text+"limits."+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range serverLimitsKeys {
		text := base[execDirect] + "[server.limits]\n"
		if rate, ok := strings.CutPrefix(k.name, "burst"); ok {
			text += "rate" + rate + " = \"1/s\"\n"
		}
		must(t, text+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range shedKeys {
		must(t, base[execDirect]+"limits.shed."+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range identKeys {
		text := "[service.auth]\nbuiltin = \"auth\"\n"
		if k.name == "fakeid" || k.name == "noident" {
			text += "ident.reply = \"name\"\n"
		}
		must(t, text+"ident."+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range rlimitKeys {
		must(t, base[execDirect]+"rlimits."+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range accessKeys {
		text := base[execDirect]
		switch k.name {
		case "uids", "gids":
			text += "listen = \"@a\"\n"
		case "timezone":
			text += "access.hours = \"08:00-18:00\"\n"
		case "hosts_daemon":
			text += "access.hosts_access = true\n"
		}
		must(t, text+"access."+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range keepaliveKeys {
		must(t, base[execDirect]+"keepalive."+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range rpcKeys {
		other := rpcKeys[0]
		if k.name == other.name {
			other = rpcKeys[1]
		}
		must(t, base[execDirect]+"rpc."+k.name+" = "+k.example+"\nrpc."+other.name+" = "+other.example+"\n", asRoot())
	}
	for _, k := range setKeys {
		must(t, base[execDirect]+"[set.office]\n"+k.name+" = "+k.example+"\n", asRoot())
	}
	for _, k := range scanKeys {
		text := base[execDirect] + "[server]\nscan." + k.name + " = " + k.example + "\n"
		if k.name == "tarpit_most" {
			text += "scan.action = \"tarpit\"\n"
		}
		must(t, text, asRoot())
	}
	for _, k := range serverKeys {
		must(t, base[execDirect]+"[server]\n"+k.name+" = "+k.example+"\n", asRoot())
	}
}

var (
	fenced  = regexp.MustCompile("(?ms)^ *```toml\n(.*?)^ *```")
	literal = regexp.MustCompile(`(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed`)
	prompt  = regexp.MustCompile(`(?m)^[$#] .*\n`) // of a transcript
	table   = regexp.MustCompile(`(?m)^\[(service|defaults|server)\b`)
)

// TestDocumentedTables compiles every TOML block of the README and the other
// pages in Markdown, and of the manual pages every literal block with a table in
// it.
func TestDocumentedTables(t *testing.T) {
	blocks := 0
	check := func(path, text string) {
		blocks++
		f, _ := Parse(path, text)
		// Programs and users of examples need not be here, all else must be right.
		o := asRoot()
		o.VanishedUsers = true
		o.ReadFile = func(string) ([]byte, error) { return nil, nil }
		o.ReadSet = o.ReadFile
		if _, _, err := Compile(f, o); err != nil {
			t.Errorf("%s: a block does not compile: %v\n%s", path, err, text)
		}
	}
	var pages []string
	for _, pattern := range []string{"../../*.md", "../../contrib/*.md", "../../contrib/*/*.md", "../../cmd/*/*.[1-8]"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	for _, path := range pages {
		text := read(t, path)
		if strings.HasSuffix(path, ".md") {
			for _, m := range fenced.FindAllStringSubmatch(text, -1) {
				check(path, m[1])
			}
			continue
		}
		for _, m := range literal.FindAllStringSubmatch(text, -1) {
			if table.MatchString(m[1]) {
				m[1] = prompt.ReplaceAllString(m[1], "")
				check(path, strings.NewReplacer(`\e`, `\`, `\(dq`, `"`, `\&`, ``).Replace(m[1]))
			}
		}
	}
	if blocks < 3 {
		t.Errorf("only %d blocks were found", blocks)
	}
}
