//go:build tools

// Package tools pins the csi-sanity of specification 1.13. It is a module of its own because that
// specification does not compile beside what Kubernetes 1.36 needs.
package tools

import _ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
