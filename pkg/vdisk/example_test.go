package vdisk_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// A raw disk becomes a VDI of twice the size, and what is in it is listed.
func Example() {
	folder, err := os.MkdirTemp("", "vdisk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	source, made := filepath.Join(folder, "disk.img"), filepath.Join(folder, "disk.vdi")
	data := make([]byte, 4<<20)
	copy(data[2<<20:], "something")
	if err := os.WriteFile(source, data, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	in, err := vdisk.Open(source, vdisk.Options{Format: vdisk.Raw})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer in.Close()
	if err := vdisk.Convert(context.Background(), in, vdisk.Target{Path: made, Format: vdisk.VDI, Size: 8 << 20}, nil); err != nil {
		fmt.Println(err)
		return
	}
	out, err := vdisk.Open(made, vdisk.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer out.Close()
	fmt.Println(out.Format, out.Subformat, out.Size())
	err = content.Each(out, func(s content.Span) error {
		fmt.Println(s.Offset, s.Length, s.Kind)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// vdi dynamic 8388608
	// 0 2097152 hole
	// 2097152 1048576 data
	// 3145728 5242880 hole
}
