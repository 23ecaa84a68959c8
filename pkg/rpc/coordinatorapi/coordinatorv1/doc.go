// Package coordinatorv1 is the generated code of the coordinators' API.
package coordinatorv1

//go:generate ./generate.sh
