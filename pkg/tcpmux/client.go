package tcpmux

// This file is the client's half: what it sends, and how it reads the answer.
// It does not read the list that HELP gets, which has no form beyond its lines.

// MaxReply is the longest reply in bytes, sign included and terminator not,
// that ScanReply takes. RFC 1078 sets no limit; what multiplexers really send
// has a tenth of that.
const MaxReply = 512

// AppendRequest appends the line that asks for name, with CRLF, to dst. The
// error says what in name cannot be sent: it must have 1 to MaxName bytes, all
// printable ASCII. "help" is a request like any other here. On an error dst
// is returned as it was.
func AppendRequest(dst []byte, name string) ([]byte, error) {
	if err := wireName(name); err != nil {
		return dst, err
	}
	dst = append(dst, name...)
	return append(dst, "\r\n"...), nil
}

// ScanReply looks for the reply at the start of b, which is all that has
// arrived from the multiplexer so far.
//
// If the state is Line, ok says whether it is a "+", text is the part of b
// between sign and terminator (it may be empty), and n is the number of bytes
// of the line with its terminator: what follows is the service's first word.
// The terminator is CRLF or, as some multiplexers send, a bare LF.
//
// The state is BadByte as soon as the first byte is neither "+" nor "-", or a
// control byte other than a tab follows a "+". A refusal is one whatever follows
// its "-": its text comes from a stranger, may have any byte but a line feed in
// it, and is nothing to send to a terminal as it is. Bytes above 0x7e pass, the
// text may be in any language. The state is TooLong after MaxReply bytes without
// a terminator. In these states, and while it is More, the other results are
// zero. As with Scan, an answer that is not More is the answer for every longer
// input too.
func ScanReply(b []byte) (ok bool, text []byte, n int, st State) {
	for i, c := range b {
		switch {
		case i == 0:
			if c != '+' && c != '-' {
				return false, nil, 0, BadByte
			}
		case c == '\n':
			return b[0] == '+', b[1:i:i], i + 1, Line
		case c == '\r' && i+1 == len(b):
			return false, nil, 0, More
		case c == '\r' && b[i+1] == '\n':
			return b[0] == '+', b[1:i:i], i + 2, Line
		case i == MaxReply:
			return false, nil, 0, TooLong
		case b[0] == '+' && (c < 0x20 && c != '\t' || c == 0x7f):
			return false, nil, 0, BadByte
		}
	}
	return false, nil, 0, More
}
