// Package disk takes the inventory of a node's block devices: what each is, what is on it,
// whether it is free, and every reason why it is not.
//
// It fails closed: a disk is free only when every question had an answer and every answer
// says so. It reads; Wipe alone writes, for a token that names the disk. It must not import an adapter other than
// pkg/partition. DESIGN.md says why things are as they are.
package disk
