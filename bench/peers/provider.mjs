// The peer: npm oidc-provider with one confidential client, in one process or a cluster.
// Settings: PEER_SECRET, PEER_REDIRECT_URI, PEER_SCOPE; PEER_STORE (memory, sqlite, postgres) and PEER_DATABASE, its
// path or URL; PEER_WORKERS (0: no cluster); PEER_PORT. Prints one line of JSON when all of it listens.
import cluster from "node:cluster";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";
import { prepare, store } from "./stores.mjs";

const { PEER_SECRET, PEER_REDIRECT_URI, PEER_SCOPE, PEER_STORE = "memory", PEER_DATABASE, PEER_PORT = "0" } = process.env;
const workers = Number(process.env.PEER_WORKERS ?? 0);
// The resource servers whose access tokens are JWTs, and the algorithm of each.
const algorithms = new Map([["https://rs256.example.com", "RS256"], ["https://es256.example.com", "ES256"]]);

function secrets() {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  return {
    cookie: randomBytes(32).toString("hex"),
    keys: [{ ...rsa, alg: "RS256", use: "sig" }, { ...ec, alg: "ES256", use: "sig" }],
  };
}

function settings(adapter, { cookie, keys }) {
  return {
    adapter,
    clients: [
      {
        client_id: "bench",
        client_secret: PEER_SECRET,
        redirect_uris: [PEER_REDIRECT_URI],
        grant_types: ["authorization_code", "refresh_token", "client_credentials"],
        response_types: ["code"],
        token_endpoint_auth_method: "client_secret_basic",
        id_token_signed_response_alg: "RS256",
      },
    ],
    claims: { profile: ["name"], email: ["email", "email_verified"] },
    cookies: { keys: [cookie] },
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: "api",
          accessTokenFormat: "jwt",
          accessTokenTTL: 3600,
          jwt: { sign: { alg: algorithms.get(resource) } },
        }),
      },
    },
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, name: "Ada Byron", email: "ada@example.com", email_verified: true }),
    }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    jwks: { keys },
    // A first-party client: nobody is asked, and each code has a grant of its own, as with pylon-oidc.
    loadExistingGrant: async (ctx) => {
      const accountId = ctx.oidc.session.accountId;
      const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId });
      grant.addOIDCScope(PEER_SCOPE);
      await grant.save();
      return grant;
    },
    issueRefreshToken: async () => true,
    expiresWithSession: async () => false,
    rotateRefreshToken: true,
    pkce: { required: () => true },
    // The lifetimes of pylon-oidc.
    ttl: {
      AccessToken: 3600, AuthorizationCode: 60, ClientCredentials: 3600, Grant: 1209600, IdToken: 3600,
      Interaction: 600, RefreshToken: 1209600, Session: 86400,
    },
  };
}

function listen(given, adapter, told) {
  const server = createServer();
  server.listen(Number(PEER_PORT), "127.0.0.1", () => {
    const { port } = server.address();
    const provider = new Provider(`http://localhost:${port}`, settings(adapter, given));
    const answer = provider.callback();
    server.on("request", (req, res) => {
      if (!req.url.startsWith("/interaction/")) return answer(req, res);
      return provider
        .interactionFinished(req, res, { login: { accountId: "ada" } }, { mergeWithLastSubmission: false })
        .catch((error) => {
          console.error(error);
          res.writeHead(500).end();
        });
    });
    told(port);
  });
}

function say(port) {
  const { version } = JSON.parse(readFileSync(new URL("node_modules/oidc-provider/package.json", import.meta.url)));
  console.log(JSON.stringify({ port, node: process.version.slice(1), version }));
}

if (cluster.isPrimary) {
  await prepare(PEER_STORE, PEER_DATABASE);
  if (workers === 0) {
    listen(secrets(), await store(PEER_STORE, PEER_DATABASE), say);
  } else {
    const PEER_SECRETS = JSON.stringify(secrets());
    let ready = 0;
    for (let number = 0; number < workers; number += 1) {
      cluster.fork({ PEER_SECRETS }).on("message", (port) => {
        ready += 1;
        if (ready === workers) say(port);
      });
    }
    for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
  }
} else {
  listen(JSON.parse(process.env.PEER_SECRETS), await store(PEER_STORE, PEER_DATABASE), (port) => process.send(port));
  process.on("disconnect", () => process.exit(0));
}
