// Dex's server, its storage in PostgreSQL: `dex FILE ADDRESS WEB`. Its own command is not built, since what other
// storages need is no longer available in the versions of its time.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log"
	"net/http"
	"os"

	"github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/connector/mock"
	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/sql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

type configuration struct {
	Issuer   string           `json:"issuer"`
	Database sql.Postgres     `json:"database"`
	Clients  []storage.Client `json:"clients"`
}

// everybody signs each browser in at once, as a user of its own: Dex keeps one refresh token a user and client.
type everybody struct{ *mock.Callback }

func (everybody) Open(id string, logger logrus.FieldLogger) (connector.Connector, error) {
	return everybody{mock.NewCallbackConnector(logger).(*mock.Callback)}, nil
}

func (e everybody) HandleCallback(connector.Scopes, *http.Request) (connector.Identity, error) {
	user, one := make([]byte, 16), e.Identity
	rand.Read(user)
	one.UserID = hex.EncodeToString(user)
	return one, nil
}

func (everybody) Refresh(_ context.Context, _ connector.Scopes, one connector.Identity) (connector.Identity, error) {
	return one, nil
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var config configuration
	if err := json.Unmarshal(text, &config); err != nil {
		log.Fatal(err)
	}
	logger := logrus.New()
	logger.SetLevel(logrus.ErrorLevel)
	database, err := config.Database.Open(logger)
	if err != nil {
		log.Fatal(err)
	}
	server.ConnectorsConfig["everybody"] = func() server.ConnectorConfig { return everybody{} }
	callback := storage.Connector{ID: "everybody", Type: "everybody", Name: "everybody"}
	store := storage.WithStaticConnectors(storage.WithStaticClients(database, config.Clients), []storage.Connector{callback})
	dex, err := server.NewServer(context.Background(), server.Config{
		Issuer:             config.Issuer,
		Storage:            store,
		SkipApprovalScreen: true,
		Web:                server.WebConfig{Dir: os.Args[3]},
		Logger:             logger,
		PrometheusRegistry: prometheus.NewRegistry(),
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Args[2], dex))
}
