package cli

import "github.com/spf13/cobra"

func volumeCommand() *cobra.Command { return &cobra.Command{Use: "volume"} }
