#!/bin/bash
# Runs tcpmuxd and the units of contrib/systemd under a real systemd: sockets of
# all kinds, reload, watchdog, restart, stop, hardening; and the units that
# tcpmuxctl makes of a table. It prints what it looks at, and ends with 0 if all of
# it is so.
#
# usage: systemd.sh tcpmuxd tcpmux tcpmuxctl
#   as root; the first two are static programs
#
# The systemd is the first process of namespaces of its own. Its root is an
# overlay of the machine's whose writes go to memory, its /tmp, /run and /dev are
# its own, and no unit of the system is started: left to itself, systemd would
# clean up the machine it finds. What is outside of this is the one cgroup that it
# manages, which is removed in the end.
set -euo pipefail
shopt -s inherit_errexit

if [ $# != 3 ] || [ "$(id -u)" != 0 ]; then
	echo "usage, as root: $0 tcpmuxd tcpmux tcpmuxctl" >&2
	exit 64
fi
if [ -z "${SYSTEMD_SH-}" ]; then
	exec env SYSTEMD_SH=inside unshare --mount --propagation private "$0" "$@"
fi
units=$(cd "$(dirname "$0")/../systemd" && pwd)
ctl=$3

# A directory in memory, which goes with this script's mount namespace.
base=$(mktemp -d /var/tmp/tcpmuxd-systemd-XXXXXX)
group=
machine=
init=
finish() {
	code=$?
	set +e
	trap - EXIT
	trap '' PIPE INT TERM HUP
	if [ $code != 0 ]; then
		echo "== the daemon"
		grep -a '^time=' "$base/run/tcpmuxd.log" | tail -n 60
		echo "== systemd"
		cat "$base/systemd.log"
		[ -z "$init" ] || inside systemctl status --full --no-pager --lines=0 tcpmuxd.service
	fi >&2
	# With the first process of its namespace the kernel ends all of them.
	[ -z "$machine" ] || { kill -9 "$machine"; wait "$machine"; } 2>/dev/null
	for _ in $(seq 100); do
		[ -d "$group" ] || break
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
	done
	[ ! -d "$group" ] || { echo "the cgroup $group is left" >&2; code=1; }
	umount -R -l "$base"
	rmdir "$base"
	exit $code
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

mount -t tmpfs tmpfs "$base"
mkdir "$base"/{cgroup,upper,work,root,run}
mount -t tmpfs tmpfs "$base/run"
mount -t cgroup2 none "$base/cgroup"
group=$base/cgroup/tcpmuxd-systemd-$$
mkdir "$group"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
root=$base/root
mount --bind "$base/run" "$root/run" # from here on seen on both sides

install -D -m 755 "$1" "$root/usr/local/sbin/tcpmuxd"
install -D -m 755 "$2" "$root/usr/local/bin/tcpmux"
: >"$root/etc/fstab"
table=$root/etc/tcpmuxd.toml
system=$base/run/systemd/system
mkdir -p "$system"
cp "$units"/tcpmuxd.{service,socket} "$system"
# For every unit: nothing of the system may come with it.
dropin() { # unit, lines
	mkdir -p "$system/$1.d"
	printf '%s\n' '[Unit]' DefaultDependencies=no "${@:2}" >"$system/$1.d/test.conf"
}
dropin tcpmuxd.socket
dropin tcpmuxd.service '[Service]' StandardError=append:/run/tcpmuxd.log WatchdogSec=4
socket() { # name, lines
	printf '%s\n' '[Socket]' Service=tcpmuxd.service "FileDescriptorName=$1" "${@:2}" >"$system/test-$1.socket"
	dropin "test-$1.socket"
}
socket direct ListenStream=127.0.0.1:2001
socket udp ListenDatagram=127.0.0.1:2002
socket unix ListenStream=/run/test.stream
socket seq ListenSequentialPacket=/run/test.seq
socket unwanted ListenStream=127.0.0.1:2003
socket fifo ListenFIFO=/run/test.fifo
printf '%s\n' '[Unit]' DefaultDependencies=no >"$system/test.target"
# It would be started by nothing; this is for the day that is not true.
for unit in systemd-tmpfiles-setup systemd-tmpfiles-clean systemd-udevd systemd-journald; do
	ln -s /dev/null "$system/$unit.service"
done

cat >"$table" <<'T'
[server]
grace = "0s"
[defaults]
user = "nobody"
[service.tcpmux]
builtin = "tcpmux"
[service."tcpmux/+env"]
exec = ["/usr/bin/env"]
[service."tcpmux/+cat"]
exec = ["/bin/cat"]
[service.direct]
exec = ["/bin/cat"]
[service.udp]
socket = "dgram"
wait = true
exec = ["/usr/bin/perl", "-e", 'open S, "+<&=0"; $peer = recv S, $b, 4096, 0; send S, $b, 0, $peer']
[service.unix]
exec = ["/bin/cat"]
[service.seq]
socket = "seqpacket"
exec = ["/bin/cat"]
T

(
	echo "$BASHPID" >"$group/cgroup.procs"
	cd "$root"
	# shellcheck disable=SC2016
	exec setpriv --pdeathsig KILL unshare --cgroup --fork --kill-child --pid --mount --ipc --uts --net bash -ec '
		ip link set lo up
		mount --make-rprivate /
		mount -t proc proc proc
		mount -t tmpfs tmpfs tmp
		mount -t tmpfs tmpfs dev
		for n in null zero full random urandom tty; do
			: >dev/$n
			mount --bind /dev/$n dev/$n
		done
		mkdir dev/pts dev/shm
		mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
		ln -s pts/ptmx dev/ptmx
		mount -t sysfs -o ro sysfs sys
		mount -t cgroup2 none sys/fs/cgroup
		mkdir old
		pivot_root . old
		umount -l /old
		rmdir /old
		exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=test.target
	'
) >"$base/systemd.log" 2>&1 </dev/null &
machine=$!

bound=30 # seconds that anything may take
fail() { echo "FAIL: $*" >&2; exit 1; }
until_() { # command: until it succeeds
	local end=$((SECONDS + bound))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "never true: $*"
		sleep 0.02
	done
}
said() { grep -qF -- "$1" "$base/run/tcpmuxd.log"; }
booted() { init=$(cat "/proc/$machine/task/$machine/children") && init=${init%% *} && [ -n "$init" ] && [ -S "$base/run/systemd/private" ]; }
until_ booted
inside() { timeout -k 1 "$bound" nsenter -t "$init" -m -p -n -i -u -- "$@"; }
until_ inside systemctl is-active test.target

# Somebody waits in the queue of port 1.
waiting() { inside grep -qE '^ *[0-9]+: 0{32}:0001 [0-9A-F]+:0000 0A [0-9A-F]+:0*[1-9A-F]' /proc/net/tcp6; }

property() { inside systemctl show -P "$1" tcpmuxd.service; }
is() { [ "$(property "$1")" = "$2" ]; }
isnt() { [ "$(property "$1")" != "$2" ]; }
# Sends a line and prints what comes back: family, type, address.
# shellcheck disable=SC2016
ask() {
	inside perl -MSocket -e 'alarm 20; my ($kind, $addr, $line) = @ARGV;
		my ($f, $t, $a) = $addr =~ m{^/} ? (AF_UNIX, $kind eq "seqpacket" ? SOCK_SEQPACKET : SOCK_STREAM, pack_sockaddr_un($addr))
			: (AF_INET, $kind eq "dgram" ? SOCK_DGRAM : SOCK_STREAM, pack_sockaddr_in($addr, inet_aton("127.0.0.1")));
		socket(S, $f, $t, 0) && connect(S, $a) or die "$addr: $!"; send(S, $line, 0) or die $!;
		recv(S, my $b, 4096, 0); print $b' "$@"
}
echoes() { [ "$(ask "$1" "$2" "hello $3")" = "hello $3" ] || fail "$1 $2 does not echo"; }
mux() { inside /usr/local/bin/tcpmux 127.0.0.1:1 "$@" </dev/null; }

echo "== the units"
mkdir -p "$base/run/check/user" "$base/run/check/tcpmuxd.service.d"
cp "$units"/tcpmuxd.{service,socket} "$base/run/check"
cp "$units"/user/* "$base/run/check/user"
cp "$units"/tcpmuxd.service.d/* "$base/run/check/tcpmuxd.service.d"
# It says what it does not know and goes on; here that is a failure.
verify() {
	local said
	said=$(inside env XDG_RUNTIME_DIR=/run systemd-analyze verify --man=no "$@" 2>&1) || fail "systemd-analyze verify $*: $said"
	[ -z "$said" ] || fail "systemd-analyze verify $*: $said"
}
verify /run/check/tcpmuxd.{service,socket}
verify --user /run/check/user/tcpmuxd.{service,socket}

echo "== socket activation, on port 1 and on sockets of every kind"
inside systemctl start tcpmuxd.socket test-{direct,udp,unix,seq,unwanted,fifo}.socket
is ActiveState inactive || fail "the daemon was started by nothing"
env=$(mux env)
is ActiveState active || fail "the daemon is not active"
grep -q '^TCPMUX_SERVICE=env' <<<"$env" || fail "no environment: $env"
if grep -E '^(LISTEN_|NOTIFY_|WATCHDOG_|INVOCATION_ID|SYSTEMD_)' <<<"$env"; then fail "a child sees the manager's variables"; fi
echoes stream 2001 direct
echoes dgram 2002 udp
echoes stream /run/test.stream unix
echoes seqpacket /run/test.seq seq
until_ said "matches no row"
grep -F "matches no row" "$base/run/tcpmuxd.log" | grep -qF 127.0.0.1:2003 || fail "another socket matches no row"
said "a passed socket is not used" || fail "the FIFO is not reported"
[ "$(grep -cF "matches no row" "$base/run/tcpmuxd.log")" = 1 ] || fail "more than one socket matches no row"

echo "== what the daemon says of itself"
until_ is StatusText "serving 7 rows, 0 instances"
is NotifyAccess main
main=$(property MainPID)
status=$(inside cat "/proc/$main/status")
grep -qP '^NoNewPrivs:\t0$' <<<"$status" || fail "NoNewPrivs is set"
grep -qP '^Seccomp:\t0$' <<<"$status" || fail "system calls are filtered"

echo "== reload"
printf '[service."tcpmux/+date"]\nexec = ["/bin/date", "+%%Y"]\n' >>"$table"
inside systemctl reload tcpmuxd
until_ is StatusText "serving 8 rows, 0 instances"
is ActiveState active || fail "it is $(property ActiveState) after the reload"
[ "$(mux date)" = "$(date +%Y)" ] || fail "the new row is not served"
cp "$table" "$base/good"
echo nonsense >>"$table"
inside systemctl reload tcpmuxd
until_ is StatusText "serving 8 rows, 0 instances; the last reload failed, see the log"
until_ is ActiveState active
mux date >/dev/null
cp "$base/good" "$table"
inside systemctl reload tcpmuxd
until_ is StatusText "serving 8 rows, 0 instances"
is MainPID "$main" || fail "it was started again"

echo "== a child outlives a restart, and nobody is refused meanwhile"
mkfifo "$base/to" "$base/from"
inside /usr/local/bin/tcpmux 127.0.0.1:1 cat <"$base/to" >"$base/from" &
child=$!
exec 5>"$base/to" 6<"$base/from"
echo before >&5
read -r -t "$bound" line <&6 && [ "$line" = before ] || fail "cat does not answer"
# One that has connected and not said yet what it wants is turned away by a daemon
# that stops; it may ask again.
(for i in $(seq 40); do mux date >/dev/null 2>&1 || mux date >/dev/null || exit 1; done) &
clients=$!
inside systemctl restart tcpmuxd
isnt MainPID "$main" || fail "it was not started again"
wait $clients || fail "a client was refused during the restart"
echo after >&5
read -r -t "$bound" line <&6 && [ "$line" = after ] || fail "the child did not outlive the restart"
exec 5>&-
wait $child
exec 6<&-
echoes stream 2001 again
echoes seqpacket /run/test.seq again

echo "== the watchdog is fed, and bites"
main=$(property MainPID)
fed=$(property WatchdogTimestampMonotonic)
until_ isnt WatchdogTimestampMonotonic "$fed"
fed=$(property WatchdogTimestampMonotonic)
until_ isnt WatchdogTimestampMonotonic "$fed"
is MainPID "$main" || fail "it was killed though it was alive"
restarts=$(property NRestarts)
inside kill -STOP "$main"
until_ isnt MainPID "$main"
until_ is ActiveState active
isnt NRestarts "$restarts" || fail "systemd has not started it again"
grep -q 'SIGABRT' "$base/run/tcpmuxd.log" || fail "it does not say where it hung"
mux date >/dev/null

echo "== who waits in the queue of a daemon that dies is answered by the next"
main=$(property MainPID)
inside kill -STOP "$main"
mux date >"$base/answer" &
client=$!
until_ waiting
inside kill -KILL "$main"
wait $client || fail "who waited was refused"
[ "$(cat "$base/answer")" = "$(date +%Y)" ] || fail "who waited got $(cat "$base/answer")"

echo "== stop"
inside systemctl stop test-{direct,udp,unix,seq,unwanted,fifo}.socket tcpmuxd.socket tcpmuxd.service
is ActiveState inactive || fail "it is $(property ActiveState)"
is Result success || fail "the result is $(property Result)"
said stopped || fail "it was not stopped in order"

echo "== hardened"
cp "$units/tcpmuxd.service.d/hardening.conf" "$system/tcpmuxd.service.d"
inside systemctl daemon-reload
inside systemctl start tcpmuxd.socket test-{direct,udp,unix,seq}.socket
mux date >/dev/null
echoes stream 2001 hardened
echoes dgram 2002 hardened
echoes stream /run/test.stream hardened
echoes seqpacket /run/test.seq hardened
main=$(property MainPID)
grep -qP '^NoNewPrivs:\t1$' <<<"$(inside cat "/proc/$main/status")" || fail "NoNewPrivs is not set"
inside systemctl stop test-{direct,udp,unix,seq}.socket tcpmuxd.socket tcpmuxd.service
is Result success || fail "the result is $(property Result)"

echo "== a table as units, without the daemon"
cat >"$base/run/converted.toml" <<'T'
[defaults]
user = "nobody"
[service."conv-cat"]
listen = "127.0.0.1:2011"
exec = ["/bin/cat"]
[service.args]
listen = ["127.0.0.1:2012", "[::1]:2012"]
argv0 = "$0 100%"
exec = ["/usr/bin/perl", "-e", "$| = 1; print join('|', @ARGV, $ENV{A}, $<, (split / /, $()[0], umask, getpriority(0, 0))", "", ";", "$HOME", "${HOME}", "100%", "a\\b", "\"it's\"", "é", "tab\t"]
env = { A = "b c %h $x \"q\" \\" }
group = "daemon"
umask = "027"
nice = 3
[service.dgram]
socket = "dgram"
wait = true
listen = "127.0.0.1:2013"
exec = ["/usr/bin/perl", "-e", 'open S, "+<&=0"; $peer = recv S, $b, 4096, 0; send S, $b, 0, $peer']
[service.unix]
listen = "/run/converted.stream"
socket_mode = "0600"
exec = ["/bin/cat"]
[service.relay]
listen = "127.0.0.1:2014"
forward = "127.0.0.1:2011"
[service.relay-unix]
listen = "127.0.0.1:2015"
forward = "/run/converted.stream"
[service.relay6]
listen = "127.0.0.1:2016"
forward = "[::1]:2012"
T
mkdir "$base/run/converted"
"$ctl" convert -to systemd -o "$base/run/converted" "$base/run/converted.toml" || fail "the table is not converted"
if "$ctl" convert -to systemd -o "$base/run/converted" "$base/run/converted.toml" 2>"$base/run/again"; then fail "units are written over"; fi
[ "$(grep -c 'is there already' "$base/run/again")" = 14 ] || fail "not all of them are said to be there: $(cat "$base/run/again")"
sockets=()
for unit in "$base"/run/converted/*; do
	name=${unit##*/}
	cp "$unit" "$system"
	dropin "$name"
	case $name in *.socket) sockets+=("$name") ;; esac
done
inside systemctl daemon-reload
inside systemctl start "${sockets[@]}"
echoes stream 2011 converted
# What it says is the same as tcpmuxd's program says: every word as it is written.
args=$(ask stream 2012 x)
want=$(printf '|;|$HOME|${HOME}|100%%|a\\b|"it'"'"'s"|é|tab\t|b c %%h $x "q" \\|%s|%s|23|3' "$(id -u nobody)" "$(getent group daemon | cut -d: -f3)")
[ "$args" = "$want" ] || fail "the arguments are $args, not $want"
echoes dgram 2013 converted
echoes dgram 2013 again
[ "$(inside stat -c %a /run/converted.stream)" = 600 ] || fail "the mode is $(inside stat -c %a /run/converted.stream)"
echoes stream /run/converted.stream converted
echoes stream 2014 relayed
echoes stream 2015 relayed
[ "$(ask stream 2016 x)" = "$want" ] || fail "the relay to IPv6 does not"
inside systemctl stop "${sockets[@]}"
[ ! -e "$base/run/converted.stream" ] || fail "the socket is still there"

echo "== Debian's unit for inetd, with only the program replaced"
debian=/var/cache/tcpmuxd-check/lib/systemd/system/inetd.service # contrib/ci/deps
ln -sf /usr/local/sbin/tcpmuxd "$root/usr/sbin/inetd"
echo '7001 stream tcp nowait nobody /bin/cat cat' >"$root/etc/inetd.conf"
cp $debian "$base/run/check"
verify /run/check/inetd.service
cp $debian "$system"
dropin inetd.service '[Service]' StandardError=append:/run/inetd.log
ln -s /dev/null "$system/network-online.target"
inside systemctl daemon-reload
inside systemctl start inetd.service # returns when it has said that it serves
inetd() { inside systemctl show -P "$1" inetd.service; }
[ "$(inetd ActiveState)" = active ] || fail "it is $(inetd ActiveState)"
main=$(inetd MainPID)
[ "$(inside cat /run/inetd.pid)" = "$main" ] || fail "the pid file has $(inside cat /run/inetd.pid), not $main"
[ "$(inside cat "/proc/$main/comm")" = inetd ] || fail "update-inetd would not find it"
echoes stream 7001 inetd
echo '7002 stream tcp nowait nobody /bin/cat cat' >>"$root/etc/inetd.conf"
inside systemctl reload inetd.service
moved() { [ "$(ask stream 7002 hello)" = hello ]; }
until_ moved
fed=$(inetd WatchdogTimestampMonotonic)
refed() { [ "$(inetd WatchdogTimestampMonotonic)" != "$fed" ]; }
until_ refed
[ "$(inetd MainPID)" = "$main" ] || fail "it was started again"
inside systemctl stop inetd.service
[ "$(inetd Result)" = success ] || fail "the result is $(inetd Result)"
[ ! -e "$base/run/inetd.pid" ] || fail "the pid file is left"

echo "== all of it is so"
