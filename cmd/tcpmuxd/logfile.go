package main

// The file that -filelog names, which is opened again at SIGHUP: whoever rotates logs
// has given it another name by then.

import (
	"errors"
	"os"
	"sync/atomic"
)

// A logFile is written to by one goroutine and opened again by another.
type logFile struct {
	path string
	file atomic.Pointer[os.File]
}

func openLogFile(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.reopen()
}

// reopen goes on with the file that has the name now, and makes it if there is none.
// After an error it goes on with the old one.
func (l *logFile) reopen() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if old := l.file.Swap(f); old != nil {
		old.Close()
	}
	return nil
}

// Write writes to the file that is open, also if that was closed just now.
func (l *logFile) Write(lines []byte) (int, error) {
	for {
		f := l.file.Load()
		n, err := f.Write(lines)
		if n > 0 || !errors.Is(err, os.ErrClosed) || l.file.Load() == f {
			return n, err
		}
	}
}
