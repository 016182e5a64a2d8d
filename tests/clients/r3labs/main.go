// Reads a stream with r3labs/sse and prints the type of each event, and at last `end: clean` or `end: cut`.
package main

import (
	"fmt"
	"os"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

func main() {
	client := sse.NewClient(os.Args[1])
	client.ReconnectStrategy = &backoff.StopBackOff{} // one connection: its end is what the test asks for
	err := client.SubscribeRaw(func(event *sse.Event) { fmt.Println(string(event.Event)) })
	if err == nil {
		fmt.Println("end: clean")
	} else {
		fmt.Println("end: cut")
	}
}
