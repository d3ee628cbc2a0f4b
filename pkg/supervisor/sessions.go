package supervisor

// datagrams serves a datagram socket that the daemon itself reads: a built-in, or
// a row with a session for each peer.
func (w *worker) datagrams(l *socket, r *row) {}
