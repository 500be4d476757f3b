// Command registry serves franz-go's imitation of a schema registry on a free port of this machine.
//
// It prints its base URL in one line, and ends when its input does, so that none outlives the tests.
// -authorization makes it answer 401 to every request without exactly that Authorization header.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func main() {
	authorization := flag.String("authorization", "", "the only Authorization header that is let in")
	flag.Parse()
	var options []srfake.Option
	if *authorization != "" {
		options = append(options, srfake.WithAuth(*authorization))
	}
	registry := srfake.New(options...)
	defer registry.Close()
	fmt.Println(registry.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
