// Words of other super-servers, so that who comes from inetd.conf, xinetd.conf
// or a unit file is told the word for it here. They are no keys: nothing of what
// is written under them is read.

package config

import (
	"fmt"
	"strings"
)

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
		"exec":             {`exec = ["/path/of/program", "ARGUMENT"]`, "server server_args command cmd program path args arguments argv execstart"},
		"listen":           {`listen = "PORT", "ADDRESS:PORT", "/PATH" or "vsock:PORT"`, "port ports bind address addr listenstream listendatagram listensequentialpacket sockets"},
		"bind_to_device":   {`listen = "ADDRESS:PORT" or bind_to_device = "eth0"`, "interface device bindtodevice"},
		"enabled":          {`enabled, with true and false swapped,`, "disable disabled"},
		"socket":           {`socket = "stream", "dgram" or "seqpacket"`, "socket_type sockettype"},
		"protocol":         {`protocol = "tcp" or "udp"`, "family bindipv6only"},
		"wait":             {`wait, which is the opposite of it,`, "nowait accept"},
		"builtin":          {`builtin = "echo"`, "internal"},
		"forward":          {`forward = "ADDRESS:PORT"`, "redirect proxy target targets"},
		"proxy_from":       {`proxy_from = ["192.0.2.10"]`, "proxy_protocol accept_proxy set_real_ip_from trusted_proxies"},
		"send_proxy":       {`send_proxy = "v2"`, "sendproxy send_proxy_v2"},
		"idle":             {`idle = "1m"`, "exitidletimesec idletimeout"},
		"lifetime":         {`lifetime = "1h"`, "runtimemaxsec connectionlifetime"},
		"user":             {`user = "nobody"`, "uid username owner"},
		"group":            {`group = "nogroup"`, "gid groupname"},
		"groups":           {`groups = ["adm"]`, "supplementarygroups"},
		"cwd":              {`cwd = "/"`, "chdir dir directory workdir workingdirectory"},
		"chroot":           {`chroot = "/srv/ftp"`, "root rootdirectory"},
		"env":              {`env = { NAME = "value" }`, "environment setenv"},
		"env_pass":         {`env_pass = ["NAME"]`, "passenv passenvironment"},
		"env_file":         {`env_file = "/path"`, "environmentfile"},
		"stdout":           {`stdout = "socket", "log" or "null"`, "standardoutput"},
		"stderr":           {`stderr = "socket", "log" or "null"`, "standarderror"},
		"nice":             {`nice = 10`, "niceness"},
		"ioprio":           {`ioprio = "best-effort:4"`, "ioschedulingclass ioschedulingpriority ionice"},
		"oom_score_adj":    {`oom_score_adj = 500`, "oomscoreadjust oom_score"},
		"cpus":             {`cpus = "0-3,7"`, "cpuaffinity cpu_affinity affinity"},
		"socket_mode":      {`socket_mode = "0666"`, "socketmode mode perm"},
		"socket_user":      {`socket_user = "root"`, "socketuser"},
		"socket_group":     {`socket_group = "adm"`, "socketgroup"},
		"directory_mode":   {`directory_mode = "0755"`, "directorymode"},
		"pass_credentials": {`pass_credentials = true`, "passcredentials passcred"},
		"reuseport":        {`reuseport = true`, "reuse_port"},
		"defer_accept":     {`defer_accept = "30s"`, "deferacceptsec"},
		"congestion":       {`congestion = "cubic"`, "tcpcongestion"},
		"ttl":              {`ttl = 64`, "ipttl"},
		"tos":              {`tos = 0x10`, "iptos"},
		"rcvbuf":           {`rcvbuf = 65536`, "receivebuffer recvbuf"},
		"sndbuf":           {`sndbuf = 65536`, "sendbuffer"},
		"keepalive":        {`keepalive = { idle = "2h", interval = "75s", count = 9 }`, "keepalivetimesec keepaliveintervalsec keepaliveprobes"},

		"access.allow":                {`access.allow = ["192.0.2.0/24"]`, "only_from ipaddressallow"},
		"access.deny":                 {`access.deny = ["192.0.2.0/24"]`, "no_access ipaddressdeny"},
		"limits.instances":            {`limits.instances = 40`, "max max_connections maxconnections max_instances"},
		"limits.instances_per_source": {`limits.instances_per_source = 4`, "per_source max_per_source maxconnectionspersource"},
		"limits.rate":                 {`limits.rate = "50/s"`, "cps max_rate triggerlimitburst"},
		"limits.shed":                 {`limits.shed = { load = 8.0 }`, "max_load"},
		"limits.refusal_file":         {`limits.refusal_file = "/etc/tcpmuxd/busy"`, "banner_fail"},
	} {
		for w := range strings.FieldsSeq(f.words) {
			all[w] = foreign{key, f.write}
		}
	}
	// xinetd's rlimit_cpu and systemd's LimitCPU.
	for _, k := range rlimitKeys {
		f := foreign{"rlimits." + k.name, fmt.Sprintf("rlimits.%s = %s", k.name, k.example)}
		all["rlimit_"+k.name], all["limit"+k.name] = f, f
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
