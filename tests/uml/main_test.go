package uml_test

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(programsDir())
	os.Exit(code)
}

// programsDir is where the programs for guests are built.
func programsDir() string { return fmt.Sprintf("/var/tmp/hflp%d", os.Getpid()) }
