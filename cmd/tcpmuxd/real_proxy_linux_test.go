// A real load balancer, HAProxy, in front of the daemon and behind it: whom the
// daemon takes for the peer, and what HAProxy takes from a relay.

package main_test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// balance runs HAProxy on a configuration, whose listeners can be reached when it
// returns.
func balance(t *testing.T, ready, text string) {
	t.Helper()
	path := filepath.Join(tempDir(t), "haproxy.cfg")
	writeFile(t, path, 0o644, "defaults\n\tmode tcp\n\ttimeout connect 20s\n\ttimeout client 60s\n\ttimeout server 60s\n\tunique-id-format %ci\n"+
		"listen ready\n\tbind "+ready+"\n\ttcp-request connection reject\n"+text)
	cmd := exec.Command(peer(t, "haproxy"), "-db", "-f", path)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	if !poll(bound, func() bool {
		c, err := net.DialTimeout("tcp", ready, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}) {
		t.Fatal("HAProxy does not listen")
	}
}

const tellPeer = `["/bin/sh", "-c", "echo $TCPREMOTEIP $REMOTE_ADDR $TCPLOCALIP $TCPLOCALPORT ${PROXY_ADDR-none}; exec cat"]`

// TestBehindHAProxy: through version 1, version 2 and version 2 with TLVs, on a
// port and by name, access, limits, the log and the program see HAProxy's client.
func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	const from = "proxy_from = [\"127.0.0.3\"]\n"
	row := "exec = " + tellPeer + "\nuser = \"nobody\"\ngroups = []\naccess.allow = [\"127.0.0.7\", \"127.0.0.8\"]\nlimits.instances_per_source = 1\n"
	d := serve(t, jsonLog+"[service.tcpmux]\nbuiltin = \"tcpmux\"\nlisten = \""+mux+"\"\n"+from+
		"[service.who]\nlisten = \""+direct+"\"\n"+from+row+"[service.\"tcpmux/+who\"]\n"+row)
	var config strings.Builder
	ways := map[string]string{}
	for _, to := range []string{direct, mux} {
		for i, send := range []string{"send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"} {
			at := local(t)
			ways[at] = to
			fmt.Fprintf(&config, "listen l%d-%s\n\tbind %s\n\tserver s %s source 127.0.0.3 %s\n", i, at[strings.LastIndexByte(at, ':')+1:], at, to, send)
		}
	}
	balance(t, local(t), config.String())
	n := map[string]int{}
	for at, to := range ways {
		id, name, ok, busy, denied := "who", "", "", "", ""
		if to == mux {
			id, name, ok, busy, denied = "tcpmux/+who", "who\r\n", "+Go\r\n", "-Too many connections\r\n", "-Service not available\r\n"
		}
		_, port, _ := net.SplitHostPort(at)
		c := dial(t, "127.0.0.7", at)
		io.WriteString(c, name)
		hear(t, c, ok+"127.0.0.7 127.0.0.7 127.0.0.1 "+port+" 127.0.0.3\n")
		echo(t, c, "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n")
		// The other client has a place of its own, this one has none left, and a
		// third may not come, all of them by the same HAProxy.
		expect(t, "127.0.0.7", at, name, busy)
		expect(t, "127.0.0.9", at, name, denied)
		expect(t, "127.0.0.8", at, name+"x", ok+"127.0.0.8 127.0.0.8 127.0.0.1 "+port+" 127.0.0.3\nx")
		c.CloseWrite()
		hearEnd(t, c, "")
		n[id] += 2
		d.waitForN(n[id], "end", "service", id)
		d.waitFor("refuse", "service", id, "reason", "instances_per_source")
		d.waitFor("refuse", "service", id, "reason", "access")
	}
	for _, e := range append(d.events("start"), d.events("refuse")...) {
		if peer, proxy := e.text("peer"), e.text("proxy"); strings.HasPrefix(peer, "127.0.0.3:") || e["more"] == nil && !strings.HasPrefix(proxy, "127.0.0.3:") {
			t.Errorf("peer %s by %s: %v", peer, proxy, e)
		}
	}
	d.checkIdle()
}

// TestHAProxyChecks: its health checks are its own connections (LOCAL), and are
// let in as such.
func TestHAProxyChecks(t *testing.T) {
	t.Parallel()
	direct := local(t)
	d := serve(t, jsonLog+"[service.daytime]\nbuiltin = \"daytime\"\nlisten = \""+direct+"\"\nproxy_from = \"127.0.0.3\"\naccess.allow = \"127.0.0.3\"\n")
	balance(t, local(t), "listen checked\n\tbind "+local(t)+"\n\toption tcp-check\n\ttcp-check connect send-proxy\n\ttcp-check expect rstring .\n"+
		"\tserver s "+direct+" source 127.0.0.3 send-proxy-v2 check inter 100ms\n")
	d.waitForN(3, "end", "service", "daytime")
	for _, e := range d.events("end", "service", "daytime") {
		if !strings.HasPrefix(e.text("peer"), "127.0.0.3:") || e["proxy"] != nil {
			t.Errorf("%v", e)
		}
	}
}

// TestRelayToHAProxy: a relay tells HAProxy who its peer is, which tells the
// daemon again: the last in the chain sees the first.
func TestRelayToHAProxy(t *testing.T) {
	t.Parallel()
	mux, direct, relay, target := local(t), local(t), local(t), local(t)
	forward := "forward = \"" + target + "\"\nsend_proxy = "
	d := serve(t, jsonLog+"[service.tcpmux]\nbuiltin = \"tcpmux\"\nlisten = \""+mux+"\"\n"+
		"[service.who]\nlisten = \""+direct+"\"\nproxy_from = \"127.0.0.3\"\nexec = "+tellPeer+"\nuser = \"nobody\"\ngroups = []\n"+
		"[service.relay]\nlisten = \""+relay+"\"\n"+forward+"\"v1\"\n[service.\"tcpmux/+relay\"]\n"+forward+"\"v2\"\n")
	balance(t, local(t), "listen chain\n\tbind "+target+" accept-proxy\n\tserver s "+direct+" source 127.0.0.3 send-proxy-v2\n")
	for at, say := range map[string]string{relay: "", mux: "relay\r\n"} {
		_, port, _ := net.SplitHostPort(at)
		ok := ""
		if say != "" {
			ok = "+Go\r\n"
		}
		expect(t, "127.0.0.7", at, say+"x", ok+"127.0.0.7 127.0.0.7 127.0.0.1 "+port+" 127.0.0.3\nx")
	}
	d.waitForN(2, "end", "service", "who")
	d.waitFor("end", "service", "relay", "reason", "closed")
	d.waitFor("end", "service", "tcpmux/+relay", "reason", "closed")
	d.idle = 0 // relays keep their loops and some pipes
}
