package supervisor

// Threads. Go makes one whenever all that it has are busy or stand in system
// calls, and ends the program when it cannot. When the children have used up
// what the daemon's cgroup may have (pids.max, TasksMax= of systemd), that must
// not be the end of the daemon: so all it can need are there before.

import (
	"runtime"
	"sync"
)

// otherThreads are those that are not a loop's: the reaper, the signals, the log, the accounts and the addresses, and some that run Go.
const otherThreads = 12

// heldThreads are for starts that somebody has to stand still for, see apart: those
// that the workers have under way, and three rows with as many as each may have
// held.
func (s *Supervisor) heldThreads() int { return len(s.loops)*startsMost + 3*heldPerRow }

// makeThreads has so many threads exist. They sleep until they are needed, and
// Go never ends them.
func makeThreads(n int) {
	var made, done sync.WaitGroup
	enough := make(chan struct{})
	made.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread() // nobody else's while this waits
			defer runtime.UnlockOSThread()
			made.Done()
			<-enough
		})
	}
	made.Wait()
	close(enough)
	done.Wait()
}
