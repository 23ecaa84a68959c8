package obs

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes format "json" or "text" at the given level
// ("debug", "info", "warn", "error") to w. Text in any script comes out as it went in.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var at slog.Level
	if err := at.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}
	options := &slog.HandlerOptions{Level: at}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log format %q is neither json nor text", format)
	}
}
