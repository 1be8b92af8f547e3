// The API server's own check of ID tokens: `kubernetes ISSUER-ADDRESS PROVIDER ADDRESS FLAG…`. It takes no issuer but
// `https://`, so the provider is served by TLS at the first address; the flags are those of kube-apiserver.
package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

type authority []byte

func (a authority) CurrentCABundleContent() []byte { return a }

func main() {
	flags := flag.NewFlagSet("kube-apiserver", flag.ExitOnError)
	issuer := flags.String("oidc-issuer-url", "", "")
	client := flags.String("oidc-client-id", "", "")
	username := flags.String("oidc-username-claim", "sub", "")
	groups := flags.String("oidc-groups-claim", "", "")
	flags.Parse(os.Args[4:])

	provider, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	tls := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(provider)
		r.Out.Host = r.In.Host
	}})
	tls.Listener.Close()
	if tls.Listener, err = net.Listen("tcp", os.Args[1]); err != nil {
		log.Fatal(err)
	}
	tls.StartTLS()
	none := ""
	server, err := oidc.New(context.Background(), oidc.Options{
		CAContentProvider: authority(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})),
		JWTAuthenticator: apiserver.JWTAuthenticator{
			Issuer: apiserver.Issuer{URL: *issuer, Audiences: []string{*client}},
			ClaimMappings: apiserver.ClaimMappings{
				Username: apiserver.PrefixedClaimOrExpression{Claim: *username, Prefix: &none},
				Groups:   apiserver.PrefixedClaimOrExpression{Claim: *groups, Prefix: &none},
			},
		},
		SupportedSigningAlgs: []string{"RS256"},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Args[3], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			if err := server.HealthCheck(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
			return
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		found, ok, err := server.AuthenticateToken(r.Context(), token)
		if err != nil || !ok {
			log.Println(err)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"username": found.User.GetName(), "groups": found.User.GetGroups()})
	})))
}
