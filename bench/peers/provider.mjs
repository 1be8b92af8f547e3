// The peer: npm oidc-provider in one process, its store in memory, with one confidential client.
// Settings: PEER_SECRET, PEER_REDIRECT_URI, PEER_SCOPE. Prints one line of JSON when it listens.
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const { PEER_SECRET, PEER_REDIRECT_URI, PEER_SCOPE } = process.env;
const grantable = new Set(["AccessToken", "AuthorizationCode", "RefreshToken"]);
const stored = new Map();
const ofGrant = new Map();
const sessionOfUid = new Map();

// The adapter that the package brings forgets all but some 1,000 entries, which a run outgrows.
class Memory {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload) {
    const key = `${this.model}:${id}`;
    stored.set(key, payload);
    if (this.model === "Session") sessionOfUid.set(payload.uid, id);
    if (grantable.has(this.model) && payload.grantId) {
      if (!ofGrant.has(payload.grantId)) ofGrant.set(payload.grantId, new Set());
      ofGrant.get(payload.grantId).add(key);
    }
  }

  async find(id) {
    return stored.get(`${this.model}:${id}`);
  }

  async findByUid(uid) {
    return this.find(sessionOfUid.get(uid));
  }

  async consume(id) {
    stored.get(`${this.model}:${id}`).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    stored.delete(`${this.model}:${id}`);
  }

  async revokeByGrantId(grantId) {
    for (const key of ofGrant.get(grantId) ?? []) stored.delete(key);
    ofGrant.delete(grantId);
  }
}

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const provider = new Provider(`http://localhost:${port}`, {
    adapter: Memory,
    clients: [
      {
        client_id: "bench",
        client_secret: PEER_SECRET,
        redirect_uris: [PEER_REDIRECT_URI],
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "client_secret_basic",
        id_token_signed_response_alg: "RS256",
      },
    ],
    claims: { profile: ["name"], email: ["email", "email_verified"] },
    cookies: { keys: [randomBytes(32).toString("hex")] },
    features: { devInteractions: { enabled: false } },
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, name: "Ada Byron", email: "ada@example.com", email_verified: true }),
    }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), alg: "RS256", use: "sig" }] },
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
    ttl: { AccessToken: 3600, AuthorizationCode: 60, Grant: 1209600, IdToken: 3600, Interaction: 600, RefreshToken: 1209600, Session: 86400 },
  });
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
  const { version } = JSON.parse(readFileSync(new URL("node_modules/oidc-provider/package.json", import.meta.url)));
  console.log(JSON.stringify({ port, node: process.version.slice(1), version }));
});
