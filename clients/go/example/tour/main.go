// Tour is a tour of matchcut in Go. Every client has this program, and each prints the same lines.
//
//	tour build/media             the tour
//	tour build/media restart     waits for a line, then asks a server that may be away
//
// It finds the server as the command line does, but for the tenant, which is "tour" unless MATCHCUT_TENANT names another:
// MATCHCUT_SERVER, MATCHCUT_TLS_CA, MATCHCUT_CLIENT_TOKEN_FILE.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"matchcut"
	v1 "matchcut/v1"
)

// visitor is what each step of the tour needs.
type visitor struct {
	*matchcut.Client
	ctx   context.Context
	media string // a folder
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: tour MEDIA [restart]")
	}
	v := visitor{connect(), context.Background(), os.Args[1]}
	defer v.Close()
	if len(os.Args) > 2 && os.Args[2] == "restart" {
		v.restart()
	} else {
		v.tour()
	}
}

// connect makes a client that tries again for a good while, so that a server may be restarted.
func connect() *matchcut.Client {
	server := os.Getenv("MATCHCUT_SERVER")
	if server == "" {
		server = "127.0.0.1:7411"
	}
	options := matchcut.Options{
		Tenant:  os.Getenv("MATCHCUT_TENANT"),
		Timeout: time.Minute,
		Retry:   matchcut.Retry{Attempts: 30, Initial: 200 * time.Millisecond, Maximum: time.Second},
	}
	if options.Tenant == "" {
		options.Tenant = "tour"
	}
	if authorities := os.Getenv("MATCHCUT_TLS_CA"); authorities != "" {
		options.TLS = must(matchcut.TLS(authorities, "", ""))
	}
	if file := os.Getenv("MATCHCUT_CLIENT_TOKEN_FILE"); file != "" {
		options.Token = string(bytes.TrimSpace(must(os.ReadFile(file))))
	}
	return must(matchcut.Dial(server, options))
}

// tour is everything once.
func (v visitor) tour() {
	fmt.Println("health:", must(v.Health(v.ctx, "")))
	v.tidy()
	v.fill()
	v.look()
	v.ask()
	v.watch()
	v.follow()
	v.fail()
	v.stop()
	v.tidy()
	fmt.Println("left:", len(v.ids(nil)), "items")
}

// tidy takes out what a tour puts in.
func (v visitor) tidy() {
	for _, id := range []string{"a", "bikes", "carphone", "twin"} {
		must(v.Remove(v.ctx, &v1.RemoveItemRequest{ItemId: id, AllowMissing: true}))
	}
}

// restart puts an item in, waits for a line on standard input, and asks for it: of a server that is being restarted.
func (v visitor) restart() {
	must(v.Ingest(v.ctx, &v1.IngestHeader{Item: &v1.Item{ItemId: "bikes"}}, matchcut.File(v.clip("bikes"))))
	fmt.Println("ready")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
	query := matchcut.LikeItems("bikes")
	query.GetItems().IncludeThemselves = true
	show("after a restart", must(v.Recommend(v.ctx, &v1.RecommendRequest{Query: query})))
	must(v.Remove(v.ctx, &v1.RemoveItemRequest{ItemId: "bikes"}))
}

// ids are the ids of the items of a listing.
func (v visitor) ids(request *v1.ListItemsRequest) (ids []string) {
	items := v.List(v.ctx, request)
	for items.Next() {
		ids = append(ids, items.Item().ItemId)
	}
	check(items.Err())
	return ids
}

// clip is where a clip lies.
func (v visitor) clip(name string) string {
	return filepath.Join(v.media, name+".mp4")
}

// show prints one line for a ranking.
func show(what string, ranking *v1.RecommendResponse) {
	var words []string
	for _, match := range ranking.Matches {
		words = append(words, fmt.Sprintf("%s %.3f", match.Item.ItemId, match.Score))
	}
	fmt.Printf("%s: %s\n", what, listed(words))
}

// showUser prints one line for a user's list.
func showUser(what string, list *v1.RecommendForUserResponse) {
	known := fmt.Sprintf("%d events", list.Events)
	if list.Cold {
		known = "cold"
	}
	var words []string
	for _, match := range list.Matches {
		word := match.Item.ItemId
		if nearest := match.Reason.GetNearestItemId(); nearest != "" {
			word += " (" + nearest + ")"
		}
		words = append(words, word)
	}
	fmt.Printf("%s: %s; %s\n", what, known, listed(words))
}

// listed is words with commas.
func listed(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// must is the result of a call that a tour cannot do without.
func must[T any](result T, err error) T {
	check(err)
	return result
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
