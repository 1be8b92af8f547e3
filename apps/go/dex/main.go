// Dex's server with its connector `oidc`, storage in memory: `dex FILE ADDRESS WEB`. Its own command is not built,
// since what other storages need is no longer had in the versions of its time.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/ghodss/yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

type configuration struct {
	Issuer     string `json:"issuer"`
	Connectors []struct {
		Type   string          `json:"type"`
		ID     string          `json:"id"`
		Name   string          `json:"name"`
		Config json.RawMessage `json:"config"`
	} `json:"connectors"`
	StaticClients []storage.Client `json:"staticClients"`
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var config configuration
	if err := yaml.Unmarshal(text, &config); err != nil {
		log.Fatal(err)
	}
	logger := logrus.New()
	connectors := []storage.Connector{}
	for _, one := range config.Connectors {
		connectors = append(connectors, storage.Connector{ID: one.ID, Type: one.Type, Name: one.Name, Config: one.Config})
	}
	store := storage.WithStaticConnectors(storage.WithStaticClients(memory.New(logger), config.StaticClients), connectors)
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
