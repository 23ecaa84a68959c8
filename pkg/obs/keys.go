// Package obs holds what logs and metrics share: the keys of structured logs and
// the way a logger is made. Log messages are constant and in lower case; what varies
// stands in attributes under these keys.
package obs

// Keys of log attributes.
const (
	KeyNode    = "node"
	KeyDisk    = "disk"
	KeyOSD     = "osd"
	KeyPool    = "pool"
	KeyVolume  = "volume"
	KeyName    = "name"
	KeyPlan    = "plan"
	KeyStep    = "step"
	KeyError   = "err"
	KeyRequest = "request"
	KeyMethod  = "method"
	KeyCluster = "cluster"
	KeyDriver  = "driver"
	KeyDaemon  = "daemon"
	KeyPath    = "path"
	KeyDevice  = "device"
	KeyTook    = "took"
)
