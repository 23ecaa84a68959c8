// Package crash kills and stops the CSI services at points of their work, on a real
// cluster, and looks from outside at what is there afterwards: the volume that was asked
// for, or nothing at all.
package crash
