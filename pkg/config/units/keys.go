// What follows where a key has no counterpart. There is a line here for every key
// of a row and of [server]: an empty one says that units have it, or that what they
// do without is said where they are made.

package units

const ofTheDaemon = "is about tcpmuxd itself, which does not run then"

var serverLost = map[string]string{
	"grace":                       ofTheDaemon,
	"log_format":                  ofTheDaemon,
	"log_level":                   ofTheDaemon,
	"control":                     ofTheDaemon,
	"hosts_access_dir":            "",
	"scan.names":                  "nobody is held off for what they ask for",
	"scan.within":                 "nobody is held off for what they ask for",
	"scan.hold":                   "nobody is held off for what they ask for",
	"scan.action":                 "nobody is held off for what they ask for",
	"scan.tarpit_most":            "nobody is held off for what they ask for",
	"scan.exempt":                 "nobody is held off for what they ask for",
	"scan.sources":                "nobody is held off for what they ask for",
	"scan.nft_set":                "nobody is put into the set",
	"scan.nft_set_v6":             "nobody is put into the set",
	"limits.instances":            "systemd has no limit over several units",
	"limits.instances_per_source": "systemd has no limit over several units",
	"limits.rate":                 "systemd has no limit over several units",
	"limits.burst":                "systemd has no limit over several units",
	"limits.rate_per_source":      "systemd has no limit over several units",
	"limits.burst_per_source":     "systemd has no limit over several units",
	"limits.source_prefix_v4":     "systemd has no limit over several units",
	"limits.source_prefix_v6":     "systemd has no limit over several units",
}

var lost = map[string]string{
	"enabled": "", "name": "", "socket": "", "protocol": "", "wait": "",
	"listen": "", "backlog": "", "keepalive": "", "nodelay": "", "defer_accept": "", "congestion": "", "reuseport": "",
	"freebind": "", "transparent": "", "bind_to_device": "", "broadcast": "", "rcvbuf": "", "sndbuf": "", "mark": "",
	"priority": "", "tos": "", "ttl": "",
	"socket_mode": "", "socket_user": "", "socket_group": "", "directory_mode": "", "pass_credentials": "",

	"exec": "", "argv0": "", "user": "", "group": "", "groups": "", "cwd": "", "umask": "", "env": "", "env_pass": "",
	"env_file": "", "stdout": "", "stderr": "", "chroot": "", "nice": "", "ioprio": "", "oom_score_adj": "", "cpus": "",
	"rlimits.cpu": "", "rlimits.fsize": "", "rlimits.data": "", "rlimits.stack": "", "rlimits.core": "", "rlimits.rss": "",
	"rlimits.nproc": "", "rlimits.nofile": "", "rlimits.memlock": "", "rlimits.as": "", "rlimits.locks": "",
	"rlimits.sigpending": "", "rlimits.msgqueue": "", "rlimits.nice": "", "rlimits.rtprio": "", "rlimits.rttime": "",

	// Rows with these have no units.
	"rpc":     "",
	"builtin": "", "help": "", "timeout": "", "hidden": "", "ident": "",

	"forward":         "",
	"connect_timeout": "systemd-socket-proxyd(8) waits for its target as long as the kernel does",
	"source":          "the target sees the connection come from this machine",
	"send_proxy":      "the target is not told who the peer is",
	"idle":            "nothing ends because its peer is silent",
	"lifetime":        "nothing ends because it has lasted too long",

	"proxy_from":    "nobody reads a header of the PROXY protocol: the program gets it as data, and the peer is the balancer",
	"proxy_timeout": "nobody reads a header of the PROXY protocol",

	"access.allow": "", "access.deny": "", "access.hosts_access": "", "access.hosts_daemon": "",
	"access.uids":       "everybody may connect whom the mode of the socket lets; write SocketMode=0660 and SocketGroup=",
	"access.gids":       "everybody may connect whom the mode of the socket lets; write SocketMode=0660 and SocketGroup=",
	"access.interfaces": "peers may come by any interface; write BindToDevice= for one",
	"access.local":      "peers may come to any address that the socket listens on; write it in ListenStream= or ListenDatagram=",
	"access.hours":      "peers are served at any time; a timer can start and stop the socket unit",
	"access.timezone":   "peers are served at any time",

	"limits.instances": "", "limits.instances_per_source": "", "limits.rate": "", "limits.burst": "",
	"limits.rate_per_source":  "a source may start as many as it likes, until the limit of all sources is reached",
	"limits.burst_per_source": "a source may start as many as it likes, until the limit of all sources is reached",
	"limits.source_prefix_v4": "systemd counts by whole addresses",
	"limits.source_prefix_v6": "systemd counts by whole addresses",
	"limits.overflow":         "systemd closes connections that are too many",
	"limits.overflow_wait":    "systemd closes connections that are too many",
	"limits.refusal":          "systemd says nothing to who is refused",
	"limits.refusal_file":     "systemd says nothing to who is refused",
	"limits.exceeded":         "TriggerLimitIntervalSec= stops a socket that is asked too much until somebody starts it again",
	"limits.suspend":          "TriggerLimitIntervalSec= stops a socket that is asked too much until somebody starts it again",
	"limits.shed":             "services are started however busy the machine is",

	"on_reload": "", "on_stop": "",
}
