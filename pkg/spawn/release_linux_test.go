//go:build amd64 || arm64

package spawn

import "testing"

// TestReleaseWithoutAChild: a start that stands still before its clone has no
// child yet, and the step that is left is the one before's.
func TestReleaseWithoutAChild(t *testing.T) {
	s, err := NewSpawner()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Release() {
		t.Error("a slot was released before any start")
	}
	s.native.result.step = headClose + 1 // as after a child that came to its program
	if s.Release() {
		t.Error("a slot was released by the step of a child that is gone")
	}
	if s.native.slots == noSlots {
		t.Error("the slot is lost")
	}
}
