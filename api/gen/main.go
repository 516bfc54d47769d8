// Command gen writes the API's OpenAPI document into a file.
package main

import (
	"log"
	"os"

	"github.com/quicflow/quicflow/api"
)

func main() {
	text, err := api.Spec().YAML()
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[1], text, 0o644); err != nil {
		log.Fatal(err)
	}
}
