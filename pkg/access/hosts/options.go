package hosts

// The options after a rule's clients: hosts_options(5).

import (
	"fmt"
	"strings"
)

// passedOver are options that say something else than whether a peer may, and what
// follows from their not being done.
var passedOver = map[string]string{
	"banners":   "no banner is sent; limits.refusal and the program itself can say something",
	"keepalive": "write keepalive in the row",
	"linger":    "connections end as the system ends them",
	"nice":      "write nice in the row",
	"rfc931":    "no peer is asked who its user is",
	"setenv":    "write env in the row",
	"severity":  "what is refused is logged as every refusal is",
	"umask":     "write umask in the row",
	"user":      "the program runs as the row's user; write user in the row",
	"group":     "the program runs as the row's group; write group in the row",
}

// options reads what follows the clients. A rule that would run a command, or that
// tcp_wrappers could not read either, denies.
func (ru *rule) options(r *reader, s string) {
	fields := optionFields(s)
	for i, f := range fields {
		word := strings.ToLower(f)
		if n := strings.IndexAny(word, " \t=("); n >= 0 {
			word = word[:n]
		}
		why, known := passedOver[word]
		switch {
		case known:
			ru.note(r, fmt.Sprintf("the option %s is passed over: %s", word, why))
		case (word == "allow" || word == "deny") && len(f) == len(word) && i == len(fields)-1:
			ru.allow = word == "allow"
		case word == "allow" || word == "deny":
			ru.allow = false
			ru.note(r, fmt.Sprintf("the option %s has to be the last one, and has nothing after it: the rule denies", word))
			return
		case word == "spawn" || word == "twist" || word == "aclexec":
			ru.allow = false
			ru.note(r, fmt.Sprintf("the option %s runs a command, and none is run: the rule denies", word))
			return
		default:
			ru.allow = false
			ru.note(r, fmt.Sprintf("%s is no option, and no shell command is run: the rule denies", clip(f)))
			return
		}
	}
}

// optionFields cuts at colons; "\:" is a colon that does not.
func optionFields(s string) (fields []string) {
	var b strings.Builder
	end := func() {
		if f := strings.TrimSpace(b.String()); f != "" {
			fields = append(fields, f)
		}
		b.Reset()
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			b.WriteByte(':')
			i++
		case s[i] == ':':
			end()
		default:
			b.WriteByte(s[i])
		}
	}
	end()
	return fields
}
