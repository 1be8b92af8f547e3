// The auth method of Vault that asks an OpenID provider, its plugin's own code, behind as much of Vault as it needs:
// `vault server ADDRESS` mounts it at auth/oidc in memory, without tokens and policies; `vault write` and
// `vault login` are what Vault's command line does, the latter by the plugin's own handler.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"
)

const mount = "/v1/auth/oidc/"

func main() {
	var err error
	switch os.Args[1] {
	case "server":
		err = server(os.Args[2])
	case "write":
		err = write(os.Args[2], os.Args[3:])
	case "login":
		err = login()
	}
	if err != nil {
		log.Fatal(err)
	}
}

func server(address string) error {
	ctx, storage := context.Background(), &logical.InmemStorage{}
	backend, err := jwtauth.Factory(ctx, &logical.BackendConfig{
		StorageView: storage,
		System:      &logical.StaticSystemView{},
		Logger:      hclog.Default(),
	})
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := &logical.Request{
			Path:      strings.TrimPrefix(r.URL.Path, mount),
			Storage:   storage,
			Operation: logical.UpdateOperation,
			Data:      map[string]any{},
		}
		if r.Method == http.MethodGet {
			request.Operation = logical.ReadOperation
			for name, values := range r.URL.Query() {
				request.Data[name] = values[0]
			}
		} else if err := json.NewDecoder(r.Body).Decode(&request.Data); err != nil {
			answer(w, http.StatusBadRequest, map[string]any{"errors": []string{err.Error()}})
			return
		}
		if exists, found, _ := backend.HandleExistenceCheck(ctx, request); exists && !found {
			request.Operation = logical.CreateOperation
		}
		response, err := backend.HandleRequest(ctx, request)
		if err == nil && response.IsError() {
			err = response.Error()
		}
		switch {
		case err != nil:
			answer(w, http.StatusBadRequest, map[string]any{"errors": []string{err.Error()}})
		case response == nil:
			w.WriteHeader(http.StatusNoContent)
		case response.Auth != nil: // Vault's core would make a token, an entity and groups of it
			groups := []string{}
			for _, alias := range response.Auth.GroupAliases {
				groups = append(groups, alias.Name)
			}
			alias := response.Auth.Alias
			answer(w, http.StatusOK, map[string]any{"data": map[string]any{
				"name": alias.Name, "metadata": alias.Metadata, "groups": groups,
			}})
		default:
			answer(w, http.StatusOK, map[string]any{"data": response.Data})
		}
	}))
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// write takes NAME=VALUE, a list where a name comes again, as Vault's command line does.
func write(path string, pairs []string) error {
	client, err := api.NewClient(nil)
	if err != nil {
		return err
	}
	data := map[string]any{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		switch before := data[name].(type) {
		case nil:
			data[name] = value
		case string:
			data[name] = []string{before, value}
		case []string:
			data[name] = append(before, value)
		}
	}
	_, err = client.Logical().Write(path, data)
	return err
}

func login() error {
	client, err := api.NewClient(nil)
	if err != nil {
		return err
	}
	secret, err := (&jwtauth.CLIHandler{}).Auth(client, map[string]string{"skip_browser": "true"})
	if err != nil {
		return err
	}
	said, err := json.Marshal(secret.Data)
	fmt.Println(string(said))
	time.Sleep(time.Second) // the browser still reads the last page
	return err
}
