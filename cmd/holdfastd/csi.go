package main

import "github.com/spf13/cobra"

func csiCommand() *cobra.Command { return &cobra.Command{Use: "csi"} }
