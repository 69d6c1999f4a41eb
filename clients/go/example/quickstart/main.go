// Quickstart puts two clips in and asks what goes with a third.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"matchcut"
	v1 "matchcut/v1"
)

func main() {
	server := "127.0.0.1:7411"
	if named := os.Getenv("MATCHCUT_SERVER"); named != "" {
		server = named
	}
	client, err := matchcut.Dial(server, matchcut.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx := context.Background()
	for _, name := range []string{"bikes", "carphone"} {
		header := &v1.IngestHeader{Item: &v1.Item{ItemId: name}}
		if _, err := client.Ingest(ctx, header, matchcut.File("build/media/"+name+".mp4")); err != nil {
			log.Fatal(err)
		}
	}
	ranking, err := client.RecommendClip(ctx, nil, matchcut.File("build/media/carphone_distorted.mp4"))
	if err != nil {
		log.Fatal(err)
	}
	for _, match := range ranking.Matches {
		fmt.Printf("%s %.3f\n", match.Item.ItemId, match.Score)
	}
}
