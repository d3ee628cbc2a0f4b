// Package builtin has the texts of the small services of RFC 862 to 868, and
// what a daemon that answers datagrams must not answer.
//
// The texts are pure. Streams of echo, discard and chargen are package relay's;
// who may have a service at all is access's and limit's to say.
package builtin

import (
	"encoding/binary"
	"sync"
	"time"
)

// AppendDaytime appends the line of RFC 867 in the form of ctime(3), as BSD has
// always sent it, in the zone of now: "Mon Nov 23 00:20:04 2026\r\n".
func AppendDaytime(b []byte, now time.Time) []byte {
	return append(now.AppendFormat(b, time.ANSIC), '\r', '\n')
}

// since1900 is 1970 on the clock of RFC 868, in seconds.
const since1900 = 2208988800

// AppendTime appends the four bytes of RFC 868: seconds since 1900, 32 bits, big
// endian. In 2036 they begin again at 0, as those of NTP do (RFC 5905 section
// 6); a client takes the era that is nearest to its own clock.
func AppendTime(b []byte, now time.Time) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(now.Unix()+since1900))
}

// The pattern of RFC 864: lines of 72 of the 95 printing characters, each line
// beginning one character later than the one before, each ended by CRLF.
const (
	lineText  = 72
	LineSize  = lineText + 2 // of a line in bytes
	printing  = 95
	period    = printing * LineSize
	repeats   = 16
	firstChar = ' '
)

// pattern is so long that a stream is written in large pieces, from any of its
// lines. It is made for the first who wants it.
var pattern = sync.OnceValue(func() []byte {
	b := make([]byte, 0, repeats*period)
	for line := range repeats * printing {
		for i := range lineText {
			b = append(b, firstChar+byte((line+i)%printing))
		}
		b = append(b, '\r', '\n')
	}
	return b
})

// Pattern is what chargen sends, to be sent again and again. It must not be
// changed. It is safe for concurrent use, as Line is.
func Pattern() []byte { return pattern() }

// Line is the n-th line of the pattern, with CRLF. It must not be changed.
func Line(n uint) []byte {
	i := int(n%printing) * LineSize
	return pattern()[i : i+LineSize : i+LineSize]
}
