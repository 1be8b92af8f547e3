// Ory Hydra, its own command.
package main

import "github.com/ory/hydra/v2/cmd"

func main() { cmd.Execute() }
