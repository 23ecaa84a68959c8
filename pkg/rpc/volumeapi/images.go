package volumeapi

import "github.com/holdfast-storage/holdfast/pkg/storage"

// Paths of the transfer of disks into RBD images and out of them. The answer to PathImport and PathExport begins with one line, and
// ends with the session: when the caller closes it, or dies.
const (
	PathImageLook   = "/v1/images/look"    // POST ImageName: ImageLook
	PathImport      = "/v1/images/import"  // POST ImportRequest: a line of ImportSession, and then nothing
	PathExport      = "/v1/images/export"  // POST ExportRequest: a line of ExportSession, and then nothing
	PathImageData   = "/v1/images/data"    // PUT or GET ?session=&offset=&length=: bytes, with HeaderSum
	PathImageKeep   = "/v1/images/keep"    // POST KeepRequest
	PathCompare     = "/v1/images/compare" // POST CompareRequest
	PathImageFinish = "/v1/images/finish"  // POST SessionRequest: ImageFinished
	PathExtents     = "/v1/images/extents" // GET ?session=&offset=&length=: []ImageExtent
)

// HeaderSum carries the SHA-256 of the bytes that go over the socket, in hex.
const HeaderSum = "X-Holdfast-Sum"

// ImageChunkLimit is the most that goes over the socket at once, in bytes.
const ImageChunkLimit = 4 << 20

// ImageName names an RBD image: by its place, or as that of a volume.
type ImageName struct {
	Cluster   storage.ClusterID `json:"cluster,omitempty"` // "": the only one
	Pool      string            `json:"pool,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Image     string            `json:"image,omitempty"`
	Snapshot  string            `json:"snapshot,omitempty"`
	Volume    string            `json:"volume,omitempty"` // id of the volume, in place of all others
}

// String is as people write it.
func (n ImageName) String() string {
	if n.Volume != "" {
		return "volume " + n.Volume
	}
	text := "rbd:" + n.Pool + "/"
	if n.Namespace != "" {
		text += n.Namespace + "/"
	}
	text += n.Image
	if n.Snapshot != "" {
		text += "@" + n.Snapshot
	}
	return text
}

// ImageMark says how far a transfer came (package transfer).
type ImageMark struct {
	UpTo   int64  `json:"up_to"`
	Digest string `json:"digest"`
}

// Import is what an image tells of a transfer into it. It is kept in the image's metadata.
type Import struct {
	Source   string    `json:"source"` // names the files that are read, their sizes and times
	Size     int64     `json:"size"`   // of the disk in them, in bytes
	Mark     ImageMark `json:"mark"`
	Complete bool      `json:"complete,omitempty"`
}

// ImageLook is what there is under a name.
type ImageLook struct {
	Exists  bool          `json:"exists"`
	Bytes   storage.Bytes `json:"bytes,omitempty"`
	Used    bool          `json:"used,omitempty"`    // a client has it open
	Import  *Import       `json:"import,omitempty"`  // that made it, or is under way (of a volume)
	Partial *Import       `json:"partial,omitempty"` // that was cut off, beside it
	Empty   bool          `json:"empty,omitempty"`   // of a volume's: nothing was ever written to it
}

// ImportRequest asks for a session that fills an image.
type ImportRequest struct {
	Name      ImageName     `json:"name"`
	Source    string        `json:"source"`
	Disk      storage.Bytes `json:"disk"`                // what is read, in bytes
	Bytes     storage.Bytes `json:"bytes"`               // of the image: at least as much
	DataPool  string        `json:"data_pool,omitempty"` // of a new image
	Overwrite bool          `json:"overwrite,omitempty"` // an image that is there goes to the trash in the end
	Restart   bool          `json:"restart,omitempty"`   // throw away what an earlier import left
	Finishing bool          `json:"finishing,omitempty"` // an earlier session was told to finish, and its answer was lost: fault.Exists if it did
}

// ImportSession is how far the image is.
type ImportSession struct {
	Session string    `json:"session"`
	Mark    ImageMark `json:"mark"`
	Failure *Failure  `json:"failure,omitempty"` // in place of a session
}

// SnapshotPrefix begins the names of the snapshots that exports take.
const SnapshotPrefix = "holdfast-export-"

// ExportRequest asks for a session that reads an image. Without a snapshot in the name one is taken, and removed when the
// session is finished.
type ExportRequest struct {
	Name ImageName `json:"name"`
	Take string    `json:"take,omitempty"` // name of the snapshot: SnapshotPrefix and what tells it from others
	// Taken: an earlier session has read from that snapshot; it must be there.
	Taken bool `json:"taken,omitempty"`
}

// ExportSession is what is read.
type ExportSession struct {
	Session string        `json:"session"`
	Bytes   storage.Bytes `json:"bytes"`
	Of      string        `json:"of,omitempty"`      // tells the image and the snapshot from others that had or get their names
	Failure *Failure      `json:"failure,omitempty"` // in place of a session
}

// SessionRequest names a session.
type SessionRequest struct {
	Session string `json:"session"`
}

// KeepRequest remembers how far a session is.
type KeepRequest struct {
	Session string    `json:"session"`
	Mark    ImageMark `json:"mark"`
}

// ImageChunk is a stretch of an image, and the SHA-256 of what is in it, in hex.
type ImageChunk struct {
	Offset int64  `json:"offset"`
	Length int    `json:"length"`
	Sum    string `json:"sum"`
}

// CompareRequest has a stretch of an image read back: the chunks, and zeros elsewhere.
type CompareRequest struct {
	Session string       `json:"session"`
	From    int64        `json:"from"`
	To      int64        `json:"to"`
	Chunks  []ImageChunk `json:"chunks"`
}

// ImageFinished is what became of an import.
type ImageFinished struct {
	Name    string `json:"name"`              // of the image
	Trashed string `json:"trashed,omitempty"` // the one whose place it took
}

// ImageExtent is a stretch of an image that holds data, in bytes.
type ImageExtent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}
