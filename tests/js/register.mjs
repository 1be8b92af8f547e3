// openid-client registers itself, signs a user in, and manages its registration:
// node register.mjs '{"issuer", "metadata", "initial_access_token"?, "redirect_uri", "another_redirect_uri"}'
// Prints the authorization URL, reads a line with the URL that the browser came back to, and prints as one line of JSON
// what came of it. Exits 1 with the error's code where the library refuses something.
import { createInterface } from "node:readline/promises";
import * as client from "openid-client";

const asked = JSON.parse(process.argv[2]);

async function registered() {
  // Plain HTTP is only for a loopback issuer, as in production.
  const execute = asked.issuer.startsWith("http:") ? [client.allowInsecureRequests] : [];
  const options = { execute, initialAccessToken: asked.initial_access_token };
  // RFC 7591 §2: without a method, this is the one that is registered; the library's own default is another one.
  const authentication = client.ClientSecretBasic();
  const config = await client.dynamicClientRegistration(
    new URL(asked.issuer),
    asked.metadata,
    authentication,
    options,
  );
  const information = config.clientMetadata();

  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const authorizationUrl = client.buildAuthorizationUrl(config, {
    redirect_uri: asked.redirect_uri,
    scope: "openid email offline_access",
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: "S256",
    state: expectedState,
  });
  console.log(authorizationUrl.href);
  const lines = createInterface({ input: process.stdin });
  const [callback] = await new Promise((resolve) => lines.once("line", (...line) => resolve(line)));
  lines.close();
  const tokens = await client.authorizationCodeGrant(config, new URL(callback), { pkceCodeVerifier, expectedState });
  const claims = tokens.claims();
  const userinfo = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);

  const manage = async (method, body) => {
    const uri = new URL(information.registration_client_uri);
    const headers = new Headers(body ? { "content-type": "application/json" } : {});
    const token = information.registration_access_token;
    const answer = await client.fetchProtectedResource(config, token, uri, method, body && JSON.stringify(body), headers);
    return { status: answer.status, body: method === "DELETE" ? null : await answer.json() };
  };
  const read = await manage("GET");
  const { client_id } = information;
  const changed = await manage("PUT", { ...asked.metadata, client_id, redirect_uris: [asked.another_redirect_uri] });
  const removed = await manage("DELETE");
  let afterwards = 200;
  try {
    await client.refreshTokenGrant(config, refreshed.refresh_token);
  } catch (error) {
    afterwards = error.status;
  }
  return { information, claims, userinfo, read, changed, removed, afterwards };
}

try {
  console.log(JSON.stringify(await registered()));
} catch (error) {
  console.error(error.cause?.code ?? error.error ?? error.code ?? error.name, error.message, error.cause ?? "");
  process.exitCode = 1;
}
