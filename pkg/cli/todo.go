package cli

import "github.com/spf13/cobra"

func upCommand() *cobra.Command     { return &cobra.Command{Use: "up"} }
func downCommand() *cobra.Command   { return &cobra.Command{Use: "down"} }
func statusCommand() *cobra.Command { return &cobra.Command{Use: "status"} }
func volumeCommand() *cobra.Command { return &cobra.Command{Use: "volume"} }
