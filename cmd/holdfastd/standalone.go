package main

import "github.com/spf13/cobra"

func standaloneCommand() *cobra.Command { return &cobra.Command{Use: "standalone"} }
