package matchcut

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

func TestTenantAndToken(t *testing.T) {
	var tenant, sent string
	client, _ := connect(t, &fake{get: func(ctx context.Context, request *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		tenant, sent = request.Tenant, token(ctx)
		return &v1.GetItemResponse{}, nil
	}}, Options{Tenant: "ours", Token: "sesame"})
	request := &v1.GetItemRequest{ItemId: "a"}
	for _, each := range []struct {
		request *v1.GetItemRequest
		tenant  string
	}{{request, "ours"}, {&v1.GetItemRequest{Tenant: "theirs"}, "theirs"}, {nil, "ours"}} {
		_, err := client.Get(soon(t), each.request)
		none(t, err)
		if tenant != each.tenant || sent != "Bearer sesame" {
			t.Errorf("%s %s, wanted %s", tenant, sent, each.tenant)
		}
	}
	if request.Tenant != "" {
		t.Error("the caller's request has been changed")
	}
}

func TestEachMethodIsTriedAgainAsFarAsThatIsSafe(t *testing.T) {
	tries := map[string]int{}
	client, _ := connect(t, &fake{}, Options{Tenant: "ours"}, grpc.UnaryInterceptor(
		func(_ context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			tries[info.FullMethod]++
			if request, has := request.(interface{ GetTenant() string }); has && request.GetTenant() != "ours" {
				t.Errorf("%s has no tenant", info.FullMethod)
			}
			return nil, unavailable()
		}))
	ctx := soon(t)
	for method, each := range map[string]struct {
		call  func() (any, error)
		tries int
	}{
		"v1.Catalog/GetItem":              {func() (any, error) { return client.Get(ctx, nil) }, 4},
		"v1.Catalog/ListItems":            {func() (any, error) { return client.Page(ctx, nil) }, 4},
		"v1.Catalog/IngestVectors":        {func() (any, error) { return client.IngestVectors(ctx, nil) }, 4},
		"v1.Catalog/RemoveItem":           {func() (any, error) { return client.Remove(ctx, nil) }, 1},
		"v1.Catalog/SwitchEncoder":        {func() (any, error) { return client.SwitchEncoder(ctx, nil) }, 1},
		"v1.Recommender/Recommend":        {func() (any, error) { return client.Recommend(ctx, nil) }, 4},
		"v1.Recommender/RecommendForUser": {func() (any, error) { return client.RecommendFor(ctx, nil) }, 4},
		"v1.Events/ForgetUser":            {func() (any, error) { return client.Forget(ctx, "ann") }, 1},
		"v1.Events/CountEvents":           {func() (any, error) { return client.CountEvents(ctx, nil) }, 4},
		"v1.Events/RecordEvents":          {func() (any, error) { return client.Record(ctx, &v1.Event{}) }, 4},
	} {
		_, err := each.call()
		want(t, err, ErrUnavailable)
		if got := tries["/matchcut."+method]; got != each.tries {
			t.Errorf("%s: %d tries, wanted %d", method, got, each.tries)
		}
	}
	_, err := client.SwitchEncoder(ctx, &v1.SwitchEncoderRequest{DryRun: true})
	want(t, err, ErrUnavailable)
	if got := tries["/matchcut.v1.Catalog/SwitchEncoder"]; got != 1+4 {
		t.Errorf("a dry run: %d tries", got-1)
	}
}

func TestATokenThatNoHeaderMayHaveIsRefusedUnsaid(t *testing.T) {
	for _, token := range []string{"two\nlines", "trailing\n", "caf\u00e9", "nul\x00"} {
		if _, err := Dial("localhost:1", Options{Token: token}); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestTimeoutIsForCallsWithoutADeadline(t *testing.T) {
	var left time.Duration
	client, _ := connect(t, &fake{get: func(ctx context.Context, _ *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
		return nil, status.Error(codes.NotFound, "none")
	}}, Options{Timeout: time.Hour})
	_, err := client.Get(context.Background(), nil)
	want(t, err, ErrNotFound)
	if left < 59*time.Minute || left > time.Hour {
		t.Error(left)
	}
	_, err = client.Get(soon(t), nil)
	want(t, err, ErrNotFound)
	if left > patience {
		t.Error(left)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	_, err = client.Get(ctx, nil)
	want(t, err, ErrNotFound)
	if left < time.Hour {
		t.Error(left)
	}
}

func TestACallAfterClose(t *testing.T) {
	client, _ := connect(t, &fake{}, Options{})
	none(t, client.Close())
	_, err := client.Health(soon(t), "")
	want(t, err, ErrCancelled)
}

func TestHealth(t *testing.T) {
	client, _ := connect(t, &fake{}, Options{})
	got, err := client.Health(soon(t), "")
	if none(t, err); got.String() != "SERVING" {
		t.Error(got)
	}
	_, err = client.Health(soon(t), "unheard.of")
	want(t, err, ErrNotFound)
}

// certificate makes one for 127.0.0.1 that vouches for itself, and returns the paths of it and of its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	none(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	none(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	none(t, err)
	save := func(name, kind string, bytes []byte) string {
		path := filepath.Join(t.TempDir(), name)
		none(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600))
		return path
	}
	return save("cert.pem", "CERTIFICATE", der), save("key.pem", "PRIVATE KEY", secret)
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	none(t, err)
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(t, os.ReadFile, cert))
	address := serve(t, &fake{}, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities,
	})))
	other, _ := certificate(t)
	for _, each := range []struct {
		name, authorities, certificate, key string
		wanted                              error
	}{
		{"right", cert, cert, key, nil},
		{"no certificate of the client's", cert, "", "", ErrUnavailable},
		{"other authorities", other, cert, key, ErrUnavailable},
		{"authorities of the system", "", cert, key, ErrUnavailable},
	} {
		t.Run(each.name, func(t *testing.T) {
			config, err := TLS(each.authorities, each.certificate, each.key)
			none(t, err)
			client, err := Dial(address, Options{TLS: config, Retry: Retry{Attempts: 1}})
			none(t, err)
			defer client.Close()
			_, err = client.Health(soon(t), "")
			want(t, err, each.wanted)
		})
	}
}

func TestTLSFilesThatAreNone(t *testing.T) {
	cert, key := certificate(t)
	for _, paths := range [][3]string{{"/none", "", ""}, {key, "", ""}, {cert, cert, ""}, {cert, "", key}} {
		if config, err := TLS(paths[0], paths[1], paths[2]); err == nil || config != nil {
			t.Errorf("%v: no error", paths)
		}
	}
}

func must(t *testing.T, read func(string) ([]byte, error), path string) []byte {
	t.Helper()
	data, err := read(path)
	none(t, err)
	return data
}
