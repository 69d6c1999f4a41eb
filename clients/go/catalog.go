package matchcut

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "matchcut/v1"
)

// Ingest puts one item in from media. header.Item says which; the tenant, the media's form and, of a File or Bytes, the
// digest are filled in, so that an item that is there already costs no upload. Nothing is kept unless all was sent.
//
// It is tried again only with a File or Bytes. It returns what a Reader or a next returned where that failed.
func (c *Client) Ingest(ctx context.Context, header *v1.IngestHeader, media *Media) (*v1.IngestResponse, error) {
	total, replayable, err := media.stat()
	if err != nil {
		return nil, err
	}
	when := never
	if replayable {
		when = read
	}
	out := outgoing{
		chunk: func(chunk *v1.MediaChunk) proto.Message {
			return &v1.IngestRequest{Message: &v1.IngestRequest_Chunk{Chunk: chunk}}
		},
		end:   &v1.IngestRequest{Message: &v1.IngestRequest_End{End: &v1.IngestEnd{}}},
		media: media,
		meter: media.meter(total),
	}
	open := func(ctx context.Context) (grpc.ClientStream, error) { return c.catalog.Ingest(ctx) }
	var reply *v1.IngestResponse
	err = c.again(ctx, when, func(ctx context.Context) error {
		whole := proto.Clone(own(c, header)).(*v1.IngestHeader)
		whole.Media = media.header(whole.Media)
		// Of a part the server could not tell whether the digest is right.
		if replayable && len(whole.ContentSha256) == 0 && whole.Media.GetLimits().GetBytes() == 0 {
			if whole.ContentSha256, err = media.digest(ctx); err != nil {
				return err
			}
		}
		out.header = &v1.IngestRequest{Message: &v1.IngestRequest_Header{Header: whole}}
		out.meter.restart()
		reply, err = exchange[v1.IngestResponse](ctx, open, out, false)
		return err
	})
	return reply, err
}

// IngestVectors puts one item in from vectors of the caller's.
func (c *Client) IngestVectors(ctx context.Context, request *v1.IngestVectorsRequest) (*v1.IngestResponse, error) {
	return unary(ctx, c, read, c.catalog.IngestVectors, own(c, request))
}

// Get returns one item with its segments. ErrNotFound if there is none.
func (c *Client) Get(ctx context.Context, request *v1.GetItemRequest) (*v1.GetItemResponse, error) {
	return unary(ctx, c, read, c.catalog.GetItem, own(c, request))
}

// Page returns some of the tenant's items in the order of their ids; List goes through all.
func (c *Client) Page(ctx context.Context, request *v1.ListItemsRequest) (*v1.ListItemsResponse, error) {
	return unary(ctx, c, read, c.catalog.ListItems, own(c, request))
}

// Remove removes one item, at once and for good. ErrNotFound if there is none, unless AllowMissing is set.
func (c *Client) Remove(ctx context.Context, request *v1.RemoveItemRequest) (*v1.RemoveItemResponse, error) {
	return unary(ctx, c, refused, c.catalog.RemoveItem, own(c, request))
}

// SwitchEncoder lets the server's next encoder take over, for the items of all tenants; a dry run only tells how it
// stands. ErrFailedPrecondition if there is no next encoder, or if items lack its vectors and it is not forced.
func (c *Client) SwitchEncoder(
	ctx context.Context, request *v1.SwitchEncoderRequest,
) (*v1.SwitchEncoderResponse, error) {
	when := refused
	if request.GetDryRun() {
		when = read
	}
	return unary(ctx, c, when, c.catalog.SwitchEncoder, request)
}

// Items goes through a listing:
//
//	items := client.List(ctx, &v1.ListItemsRequest{})
//	for items.Next() {
//		fmt.Println(items.Item().ItemId)
//	}
//	return items.Err()
//
// It is for one goroutine.
type Items struct {
	page func(token string) (*v1.ListItemsResponse, error)
	rest []*v1.Item
	next string // the token of the page to come
	last bool   // none comes
	item *v1.Item
	err  error
}

// List goes through the tenant's items in the order of their ids, asking for pages as they are needed.
func (c *Client) List(ctx context.Context, request *v1.ListItemsRequest) *Items {
	return &Items{next: request.GetPageToken(), page: func(token string) (*v1.ListItemsResponse, error) {
		return c.Page(ctx, &v1.ListItemsRequest{
			Tenant:             request.GetTenant(),
			PageSize:           request.GetPageSize(),
			PageToken:          token,
			Tags:               request.GetTags(),
			LackingNextEncoder: request.GetLackingNextEncoder(),
		})
	}}
}

// Next moves on to the next item; false at the end, and where a page failed, see Err.
func (i *Items) Next() bool {
	for len(i.rest) == 0 {
		if i.last {
			return false
		}
		page, err := i.page(i.next)
		if err != nil {
			i.err, i.last = err, true
			return false
		}
		i.rest, i.next, i.last = page.GetItems(), page.GetNextPageToken(), page.GetNextPageToken() == ""
	}
	i.item, i.rest = i.rest[0], i.rest[1:]
	return true
}

// Item is the item that Next moved to.
func (i *Items) Item() *v1.Item {
	return i.item
}

// Err is why there are no more items; nil: all have been.
func (i *Items) Err() error {
	return i.err
}
