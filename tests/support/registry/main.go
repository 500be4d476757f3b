// Command registry serves franz-go's imitation of a schema registry on this machine.
//
// It prints its base URL in one line, and ends when its input does, so that none outlives the tests.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host and port; port 0 is a free one")
	authorization := flag.String("authorization", "", "the only Authorization header that is let in")
	flag.Parse()
	var options []srfake.Option
	if *authorization != "" {
		options = append(options, srfake.WithAuth(*authorization))
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, srfake.NewRegistry(options...).Handler())
	fmt.Printf("http://%s\n", listener.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
