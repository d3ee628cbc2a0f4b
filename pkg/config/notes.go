// What a front end says of a file that was written for another super-server, and
// what becomes of the rows of such a file that are wrong. What is in a note is
// the front end's.

package config

// A Kind is why a Note was made.
type Kind uint8

const (
	Guessed Kind = iota // the file can be read in more than one way
	Changed             // the row does not do quite what the words meant there
	Lost                // the words have no counterpart
)

func (k Kind) String() string { return [...]string{"guessed", "changed", "lost"}[k] }

// A Note is something that somebody who wrote the file should know. Its Key is
// the word it is about, its Text says what follows. Compile gives it back with
// the warnings.
type Note struct {
	Kind Kind
	*Problem
}

// leaveOut is the file of c without the rows that have errors, and their errors as
// warnings. It is nil if that would not help.
func (c *compiler) leaveOut() (*File, []*Problem) {
	if !c.f.SkipBad || len(c.wrong) == 0 {
		return nil, nil
	}
	f := *c.f
	f.Services = nil
	for _, s := range c.f.Services {
		if c.wrong[s] == nil {
			f.Services = append(f.Services, s)
		}
	}
	if len(f.Services) == len(c.f.Services) {
		return nil, nil
	}
	var left []*Problem
	for _, s := range c.f.Services {
		left = append(left, c.wrong[s]...)
	}
	return &f, leftOut(left)
}

// leftOut says of problems what becomes of where they are.
func leftOut(ps []*Problem) []*Problem {
	out := make([]*Problem, len(ps))
	for i, p := range ps {
		left := *p
		left.Text += "; this is left out until then"
		out[i] = &left
	}
	return out
}
