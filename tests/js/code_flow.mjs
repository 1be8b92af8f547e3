// openid-client goes through the code flow with PKCE: node code_flow.mjs '{"issuer", "client_id", "client_secret"?,
// "method", "private_jwk"?, "redirect_uri", "post_logout_redirect_uri"}'
// Prints the authorization URL, reads a line with the URL that the browser came back to, and prints as one line of JSON
// what it did with the tokens. Exits 1 with the error's code where the library refuses something.
import { createInterface } from "node:readline/promises";
import * as client from "openid-client";

const asked = JSON.parse(process.argv[2]);
// A private JWK with `alg` and `kid`, as WebCrypto and openid-client know it.
async function signingKey(jwk) {
  const parameters = {
    PS256: { name: "RSA-PSS", hash: "SHA-256" },
    ES256: { name: "ECDSA", namedCurve: "P-256" },
    Ed25519: { name: "Ed25519" },
  }[jwk.alg];
  const { alg, kid, ...members } = jwk;
  return { key: await crypto.subtle.importKey("jwk", members, parameters, false, ["sign"]), kid };
}

const methods = {
  client_secret_basic: client.ClientSecretBasic,
  client_secret_post: client.ClientSecretPost,
  none: client.None,
  private_key_jwt: client.PrivateKeyJwt,
};

async function codeFlow() {
  // Plain HTTP is only for a loopback issuer, as in production.
  const execute = asked.issuer.startsWith("http:") ? [client.allowInsecureRequests] : [];
  const authentication = methods[asked.method](
    asked.private_jwk ? await signingKey(asked.private_jwk) : asked.client_secret,
  );
  const config = await client.discovery(new URL(asked.issuer), asked.client_id, undefined, authentication, { execute });

  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const expectedNonce = client.randomNonce();
  const authorizationUrl = client.buildAuthorizationUrl(config, {
    redirect_uri: asked.redirect_uri,
    scope: "openid profile email offline_access",
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: "S256",
    state: expectedState,
    nonce: expectedNonce,
  });
  console.log(authorizationUrl.href);

  const lines = createInterface({ input: process.stdin });
  const [callback] = await new Promise((resolve) => lines.once("line", (...line) => resolve(line)));
  lines.close();

  const checks = { pkceCodeVerifier, expectedState, expectedNonce, idTokenExpected: true };
  const tokens = await client.authorizationCodeGrant(config, new URL(callback), checks);
  const claims = tokens.claims();
  const userinfo = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
  const introspect = async (token) =>
    asked.method === "none" ? null : (await client.tokenIntrospection(config, token)).active;
  const activeBefore = await introspect(refreshed.access_token);
  await client.tokenRevocation(config, refreshed.refresh_token);
  const activeAfter = await introspect(refreshed.access_token);
  const endSessionUrl = client.buildEndSessionUrl(config, {
    id_token_hint: refreshed.id_token,
    post_logout_redirect_uri: asked.post_logout_redirect_uri,
    state: "bye",
  });
  const rotated = refreshed.refresh_token !== tokens.refresh_token;
  return { claims, userinfo, rotated, activeBefore, activeAfter, endSessionUrl: endSessionUrl.href };
}

try {
  console.log(JSON.stringify(await codeFlow()));
} catch (error) {
  console.error(error.cause?.code ?? error.error ?? error.code ?? error.name, error.message, error.cause ?? "");
  process.exitCode = 1;
}
