//go:build tools

// Package tools pins the registry that the kube-registry example runs.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
