// Package systemd is the daemon's side of what a service manager and a service
// say to each other: the sockets it was started with (sd_listen_fds(3)), and
// what it tells about itself (sd_notify(3)).
//
// It decides nothing: which row a socket is for is config's, what a socket is
// tells listener, whether the daemon is alive the supervisor. Any manager that
// speaks these two protocols will do; none need be there.
package systemd
