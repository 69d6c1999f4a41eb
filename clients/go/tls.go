package matchcut

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS makes the settings of an encrypted connection from PEM files: the authorities that may vouch for the server ("":
// those of the system), and the certificate chain and key of this client, where the server asks for them ("": none).
func TLS(authorities, certificate, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities != "" {
		pem, err := os.ReadFile(authorities)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("matchcut: %s has no certificate in PEM", authorities)
		}
	}
	if certificate != "" || key != "" {
		own, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}
