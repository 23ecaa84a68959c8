package raftnode

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// sink hands raft's messages on.
type sink struct{ log *slog.Logger }

func logger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	l.RegisterSink(sink{to})
	return l
}

var levels = map[hclog.Level]slog.Level{hclog.Trace: slog.LevelDebug, hclog.Debug: slog.LevelDebug, hclog.Info: slog.LevelDebug, hclog.Warn: slog.LevelInfo, hclog.Error: slog.LevelWarn}

// Accept takes a message. What raft calls info is of use to those who look for a fault alone.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	s.log.With("component", "raft").Log(context.Background(), levels[level], msg, args...) //nolint:sloglint // raft's own words
}
