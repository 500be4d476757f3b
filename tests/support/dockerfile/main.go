// Reads Dockerfiles as `docker build --check` does, and prints what BuildKit's linter says of them.
package main

import (
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	said := 0
	for _, name := range os.Args[1:] {
		file, err := os.Open(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		tree, err := parser.Parse(file)
		file.Close()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		warn := func(rule, description, url, message string, location []parser.Range) {
			said++
			fmt.Printf("%s: %s\n", rule, message)
		}
		_, _, err = instructions.Parse(tree.AST, linter.New(&linter.Config{Warn: warn}))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, warning := range tree.Warnings {
			said++
			fmt.Println(warning.Short)
		}
	}
	if said > 0 {
		os.Exit(1)
	}
}
