// Words of other super-servers, so that who comes from inetd.conf, xinetd.conf
// or a unit file is told the word for it here. They are no keys: nothing of what
// is written under them is read.

package config

import "strings"

// A foreign word stands for the key it is called by here.
type foreign struct {
	key   string // dotted below the row
	write string
}

// foreignWords are in lower case: xinetd.conf(5), inetd.conf(5), systemd.socket(5)
// and systemd.exec(5).
var foreignWords = func() map[string]foreign {
	all := make(map[string]foreign)
	for key, f := range map[string]struct{ write, words string }{
		"exec":                        {`exec = ["/path/of/program", "ARGUMENT"]`, "server server_args command cmd program path args arguments argv execstart"},
		"listen":                      {`listen = "PORT" or "ADDRESS:PORT"`, "port ports bind address addr listenstream"},
		"bind_to_device":              {`listen = "ADDRESS:PORT" or bind_to_device = "eth0"`, "interface device"},
		"enabled":                     {`enabled, with true and false swapped,`, "disable disabled"},
		"socket":                      {`socket = "stream"`, "socket_type"},
		"user":                        {`user = "nobody"`, "uid username owner"},
		"group":                       {`group = "nogroup"`, "gid groupname"},
		"groups":                      {`groups = ["adm"]`, "supplementarygroups"},
		"cwd":                         {`cwd = "/"`, "chdir dir directory workdir workingdirectory"},
		"env":                         {`env = { NAME = "value" }`, "environment setenv"},
		"env_pass":                    {`env_pass = ["NAME"]`, "passenv passenvironment"},
		"env_file":                    {`env_file = "/path"`, "environmentfile"},
		"access.allow":                {`access.allow = ["192.0.2.0/24"]`, "only_from ipaddressallow"},
		"access.deny":                 {`access.deny = ["192.0.2.0/24"]`, "no_access ipaddressdeny"},
		"limits.instances":            {`limits.instances = 40`, "max max_connections maxconnections max_instances"},
		"limits.instances_per_source": {`limits.instances_per_source = 4`, "per_source max_per_source maxconnectionspersource"},
		"limits.rate":                 {`limits.rate = "50/s"`, "cps max_rate triggerlimitburst"},
	} {
		for w := range strings.FieldsSeq(f.words) {
			all[w] = foreign{key, f.write}
		}
	}
	return all
}()

// knownAs finds what is written instead of the word name below prefix.
func knownAs(name, prefix string) (foreign, bool) {
	if len(name) > 64 {
		return foreign{}, false
	}
	f, ok := foreignWords[strings.ToLower(name)]
	return f, ok && strings.HasPrefix(f.key, prefix)
}
