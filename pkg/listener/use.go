package listener

// Hold keeps the descriptor open until Release, also if the listener is closed
// meanwhile, for those who receive on it themselves. It reports false if it is
// closed already; then there is nothing to release.
func (l *Listener) Hold() (fd int, ok bool) { return l.fd, l.hold() }

// Release ends a Hold.
func (l *Listener) Release() { l.release() }
