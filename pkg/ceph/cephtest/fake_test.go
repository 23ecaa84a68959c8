package cephtest

import "testing"

func TestFakeConforms(t *testing.T) {
	fake := NewFake()
	Conformance(t, Clients{A: fake.Connect(), B: fake.Connect(), C: fake.Connect(), Outside: fake})
}
