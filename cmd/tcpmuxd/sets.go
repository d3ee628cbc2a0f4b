package main

// The files of sets, and when one of them may have changed. Whether it has, and
// what that means, is found out by reading it.

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A watch tells of changes in directories, once they have been quiet for a while.
type watch struct {
	watcher *fsnotify.Watcher
	names   []string // that matter
	dirs    []string
}

// watchSets looks at these files from now on, and at no others.
func (d *daemon) watchSets(files []string) {
	names := watchedNames(files)
	if d.sets != nil && slices.Equal(d.sets.names, names) {
		return
	}
	if d.sets != nil {
		d.sets.watcher.Close() // ends its goroutine
		d.sets = nil
	}
	if len(names) == 0 {
		return
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn("changes of sets are seen at a reload only", "error", err.Error())
		return
	}
	w := &watch{watcher: watcher, names: names}
	// The directories, because the files are replaced and not written to.
	for _, name := range names {
		dir := filepath.Dir(name)
		if slices.Contains(w.dirs, dir) {
			continue
		}
		w.dirs = append(w.dirs, dir)
		if err := watcher.Add(dir); err != nil {
			d.log.Warn("changes of sets are seen at a reload only", "error", err.Error())
		}
	}
	d.sets = w
	go w.run(d.setsChanged)
	d.reload(setsOnly) // what has changed since they were read, before anybody watched
}

// watchedNames are the files and what they are links to, sorted.
func watchedNames(files []string) (names []string) {
	for _, f := range files {
		names = append(names, filepath.Clean(f))
		if real, err := filepath.EvalSymlinks(f); err == nil {
			names = append(names, real)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// run sends on changed until the watcher is closed. Nobody waits for the second of
// two changes that the first has not been looked at yet.
func (w *watch) run(changed chan<- struct{}) {
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case ev, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if w.matters(ev.Name) {
				quiet.Reset(settle)
			}
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			quiet.Reset(settle) // events were lost; this may be one of them
		case <-quiet.C:
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}

// matters reports whether an event may be about one of the files. "..data" is how
// Kubernetes replaces all files of a directory.
func (w *watch) matters(name string) bool {
	return slices.Contains(w.names, filepath.Clean(name)) || filepath.Base(name) == "..data"
}

// stopSets ends the watch.
func (d *daemon) stopSets() {
	if d.sets != nil {
		d.sets.watcher.Close()
		d.sets = nil
	}
}
