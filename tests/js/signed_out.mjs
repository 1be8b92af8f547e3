// A small service whose users are signed out by logout tokens (Back-Channel Logout 1.0 §2.6), verified by jose:
// node signed_out.mjs CLIENT_ID. It prints its port.
// POST /sign-in {issuer, id_token} begins a session, GET /session/SID asks for it, POST /backchannel ends it.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { createRemoteJWKSet, jwtVerify } from "jose";

const EVENT = "http://schemas.openid.net/event/backchannel-logout";
const [audience] = process.argv.slice(2);
const sessions = new Set();
const seen = new Set();
let issuer;
let keys;

async function signIn(body) {
  const given = JSON.parse(body);
  issuer = given.issuer;
  const discovery = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
  keys = createRemoteJWKSet(new URL(discovery.jwks_uri));
  const { payload } = await jwtVerify(given.id_token, keys, { issuer, audience });
  sessions.add(payload.sid);
}

async function signOut(body) {
  const token = new URLSearchParams(body).get("logout_token");
  const { payload } = await jwtVerify(token, keys, {
    issuer,
    audience,
    typ: "logout+jwt",
    maxTokenAge: "2 minutes",
    requiredClaims: ["iat", "exp", "jti", "events", "sid", "sub"],
  });
  if (typeof payload.events[EVENT] !== "object" || "nonce" in payload) throw new Error("no logout token");
  if (!seen.has(payload.jti)) sessions.delete(payload.sid);
  seen.add(payload.jti);
}

const server = createServer(async (request, response) => {
  try {
    const body = await text(request);
    if (request.url === "/sign-in") await signIn(body);
    else if (request.url === "/backchannel") await signOut(body);
    else if (!sessions.has(request.url.slice("/session/".length))) response.statusCode = 404;
  } catch (error) {
    console.error(error.code ?? error.name, error.message);
    response.statusCode = 400;
  }
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
