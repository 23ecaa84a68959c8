package content

// Piece is what a writer keeps of a chunk: Data belongs at byte At of it. A writer may have changed the form of Data
// (compressed it).
type Piece struct {
	At   int
	Data []byte
}

// Pack appends the runs of blocks of a chunk that hold more than zeros. Data is the chunk's own memory.
func Pack(chunk []byte, block int, pieces []Piece) []Piece {
	begin := -1
	for at := 0; at < len(chunk); at += block {
		switch zero := IsZero(chunk[at:min(at+block, len(chunk))]); {
		case !zero && begin < 0:
			begin = at
		case zero && begin >= 0:
			pieces, begin = append(pieces, Piece{begin, chunk[begin:at]}), -1
		}
	}
	if begin >= 0 {
		pieces = append(pieces, Piece{begin, chunk[begin:]})
	}
	return pieces
}
