package standalone

import "github.com/holdfast-storage/holdfast/pkg/fault"

func checkBlankDisk(path string) error { return fault.New(fault.Unsupported, "disk %s: TODO", path) }
func checkOurDisk(path, uuid string) error {
	return fault.New(fault.Unsupported, "disk %s: TODO", path)
}
