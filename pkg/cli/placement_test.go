package cli

import "testing"

func TestPlacementTranscripts(t *testing.T) { checkTranscript(t, "placement.txt") }
