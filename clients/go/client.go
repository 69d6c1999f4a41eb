package matchcut

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "matchcut/v1"
)

const (
	largestMessage = 64 << 20         // bytes, both ways: a page of items with attributes, an item with its vectors
	connecting     = 20 * time.Second // the most that one attempt to connect may take
)

// Options of a Client. Each field's zero value means what it says at the field.
type Options struct {
	// Tenant is whose catalogue. Empty: the default tenant.
	Tenant string
	// Token is a bearer token, sent with each call; in clear text unless TLS is set. Empty: none.
	Token string
	// TLS encrypts the connection, see also TLS. Nil: plain text.
	TLS *tls.Config
	// Timeout is for calls whose context has no deadline, all their tries together; Live and LiveFor have none of it.
	// 0: no bound.
	Timeout time.Duration
	// Retry says when a failed call is sent again.
	Retry Retry
	// Dial has more options of gRPC's. Empty: none.
	Dial []grpc.DialOption
}

// Client is a connection to a matchcut server. Make it with Dial.
type Client struct {
	tenant      string
	timeout     time.Duration
	retry       Retry
	draw        func() float64                             // for the jitter, in [0, 1)
	sleep       func(context.Context, time.Duration) error // nil when the time has passed, else why it did not
	connection  *grpc.ClientConn
	catalog     v1.CatalogClient
	recommender v1.RecommenderClient
	events      v1.EventsClient
	health      grpc_health_v1.HealthClient
}

// Dial makes a client of the server at target, host:port or any name that gRPC resolves. It does not wait for the
// connection: the first call does.
func Dial(target string, options Options) (*Client, error) {
	for _, char := range []byte(options.Token) {
		if char < ' ' || char > '~' {
			return nil, errors.New("matchcut: the token has bytes that no header may have, such as the end of a line")
		}
	}
	retry := options.Retry.filled()
	reconnect := backoff.Config{ // in the rhythm of the tries; with gRPC's own, tries would meet no new connection
		BaseDelay: retry.Initial, Multiplier: retry.Multiplier, Jitter: 0.2, MaxDelay: retry.Maximum,
	}
	dial := []grpc.DialOption{
		grpc.WithUserAgent("matchcut-go"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage), grpc.MaxCallSendMsgSize(largestMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connecting}),
	}
	if options.TLS != nil {
		dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(options.TLS)))
	} else {
		dial = append(dial, grpc.WithInsecure())
	}
	if options.Token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(options.Token)))
	}
	connection, err := grpc.Dial(target, append(dial, options.Dial...)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		tenant:      options.Tenant,
		timeout:     options.Timeout,
		retry:       retry,
		draw:        chance(),
		sleep:       sleep,
		connection:  connection,
		catalog:     v1.NewCatalogClient(connection),
		recommender: v1.NewRecommenderClient(connection),
		events:      v1.NewEventsClient(connection),
		health:      grpc_health_v1.NewHealthClient(connection),
	}, nil
}

// Close cancels what is under way and closes the connection.
func (c *Client) Close() error {
	return c.connection.Close()
}

// Health asks whether the server, or with a name one service of it, is serving. ErrNotFound if it has no such service.
func (c *Client) Health(ctx context.Context, service string) (grpc_health_v1.HealthCheckResponse_ServingStatus, error) {
	reply, err := unary(ctx, c, read, c.health.Check, &grpc_health_v1.HealthCheckRequest{Service: service})
	return reply.GetStatus(), err
}

// unary carries out a call with one message each way; on failure the reply is nil.
func unary[Request, Reply any](
	ctx context.Context,
	c *Client,
	when repeatable,
	method func(context.Context, *Request, ...grpc.CallOption) (*Reply, error),
	request *Request,
) (*Reply, error) {
	if request == nil {
		request = new(Request)
	}
	var reply *Reply
	err := c.again(ctx, when, func(ctx context.Context) (err error) {
		reply, err = method(ctx, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// own returns the request with the client's tenant where it has none; it is a copy where that changes it.
func own[Request proto.Message](c *Client, request Request) Request {
	message := request.ProtoReflect()
	if !message.IsValid() { // a nil pointer
		message = message.New()
	}
	tenant := message.Descriptor().Fields().ByName("tenant")
	if c.tenant != "" && !message.Has(tenant) {
		message = proto.Clone(message.Interface()).ProtoReflect()
		message.Set(tenant, protoreflect.ValueOfString(c.tenant))
	}
	return message.Interface().(Request)
}

// bearer sends a token with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool {
	return false // whoever sends it in clear text has chosen so, as within one machine
}
