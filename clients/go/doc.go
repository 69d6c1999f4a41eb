// Package matchcut is a client of a matchcut server: video in, ranked items out.
//
//	client, err := matchcut.Dial("127.0.0.1:7411", matchcut.Options{})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	ranking, err := client.Recommend(ctx, &v1.RecommendRequest{Query: matchcut.LikeItems("bikes")})
//
// Requests and results are the messages of matchcut/v1, generated from the contract, whose comments say what each field
// means. What this package adds: media that is sent as the server can take it, tries after a failure that may pass,
// errors as Go knows them, pages that turn themselves, and dialogues. A request's empty tenant is the client's, and a
// nil request is an empty one; requests are never changed. Times are in microseconds, as in the contract.
//
// A Client may be used by many goroutines at once. Every call takes a context, whose deadline is for all tries together
// and whose cancellation ends the call.
package matchcut
