package matchcut

import (
	"context"
	"math"

	"google.golang.org/protobuf/proto"

	v1 "matchcut/v1"
)

const oneMessage = 8 << 20 // bytes; a larger clip is better decoded while it arrives. The server takes 64 MiB

// LikeItems is a query with items of the catalogue.
func LikeItems(itemIDs ...string) *v1.Query {
	return &v1.Query{Source: &v1.Query_Items{Items: &v1.ItemsQuery{ItemIds: itemIDs}}}
}

// LikeVector is a query with a vector that the server's encoder made.
func LikeVector(values []float32) *v1.Query {
	return &v1.Query{Source: &v1.Query_Vector{Vector: &v1.VectorQuery{Values: values}}}
}

// Recommend ranks the catalogue once against a query, which LikeItems or LikeVector makes. For clips see RecommendClip.
func (c *Client) Recommend(ctx context.Context, request *v1.RecommendRequest) (*v1.RecommendResponse, error) {
	return unary(ctx, c, read, c.recommender.Recommend, own(c, request))
}

// RecommendFor returns what a user should see now, of what the user did, of a history that the request gives in its
// place, and of what is of interest right now: Current, which LikeItems, LikeVector or LikeClip makes.
func (c *Client) RecommendFor(
	ctx context.Context, request *v1.RecommendForUserRequest,
) (*v1.RecommendForUserResponse, error) {
	return unary(ctx, c, read, c.recommender.RecommendForUser, own(c, request))
}

// RecommendClip ranks the catalogue once against a clip; header says how, as in Live, and may be nil. More than 8 MiB,
// or media of unknown length, goes through RecommendLive; the last ranking is returned.
//
// It is tried again only with a File or Bytes.
func (c *Client) RecommendClip(
	ctx context.Context, header *v1.RecommendLiveHeader, media *Media,
) (*v1.RecommendResponse, error) {
	total, replayable, err := media.stat()
	if err != nil {
		return nil, err
	}
	if !replayable || total > oneMessage {
		return c.lastRanking(ctx, header, media, total, replayable)
	}
	query, err := LikeClip(&v1.ClipQuery{Media: header.GetMedia(), Temporal: header.GetTemporal()}, media)
	if err != nil {
		return nil, err
	}
	tenant := own(c, header).GetTenant()
	return c.Recommend(ctx, &v1.RecommendRequest{Tenant: tenant, Query: query, Options: header.GetOptions()})
}

func (c *Client) lastRanking(
	ctx context.Context, header *v1.RecommendLiveHeader, media *Media, total int64, replayable bool,
) (*v1.RecommendResponse, error) {
	when := never
	if replayable {
		when = read
	}
	whole := proto.Clone(own(c, header)).(*v1.RecommendLiveHeader)
	if whole.Options == nil {
		whole.Options = &v1.RankOptions{}
	}
	whole.Options.FramesPerUpdate = math.MaxInt32 // only the last ranking is wanted
	out := liveOutgoing(whole, media)
	out.meter = media.meter(total)
	var reply *v1.RecommendResponse
	err := c.again(ctx, when, func(ctx context.Context) (err error) {
		out.meter.restart()
		reply, err = exchange[v1.RecommendResponse](ctx, c.openLive, out, true)
		return err
	})
	return reply, err
}
