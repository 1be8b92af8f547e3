// A gateway and an API, by libraries of others: node exchange.mjs ISSUER CLIENT_ID RESOURCE
// stdin: {"secret": "…", "tokens": {"name": {"token", "type", "scope"}, …}}. openid-client exchanges each token for one
// of RESOURCE (RFC 8693); oauth4webapi validates that as an API does (RFC 9068). Prints the claims and the answer of each,
// or the error by which it was refused.
import { readFileSync } from "node:fs";
import * as oauth from "oauth4webapi";
import * as client from "openid-client";

const [issuer, clientId, resource] = process.argv.slice(2);
const { secret, tokens } = JSON.parse(readFileSync(0, "utf8"));
// Plain HTTP is only for a loopback issuer, as in production.
const insecure = issuer.startsWith("http:");
const execute = insecure ? [client.allowInsecureRequests] : [];
const config = await client.discovery(new URL(issuer), clientId, secret, undefined, { execute });

const exchanged = async ({ token, type, scope }) => {
  const answer = await client.genericGrantRequest(config, "urn:ietf:params:oauth:grant-type:token-exchange", {
    subject_token: token,
    subject_token_type: `urn:ietf:params:oauth:token-type:${type}`,
    resource,
    ...(scope ? { scope } : {}),
  });
  const claims = await oauth.validateJwtAccessToken(
    config.serverMetadata(),
    new Request("https://api.example.com/", { headers: { authorization: `Bearer ${answer.access_token}` } }),
    resource,
    { [oauth.allowInsecureRequests]: insecure },
  );
  return { claims, scope: answer.scope, type: answer.issued_token_type };
};

const told = {};
for (const [name, each] of Object.entries(tokens)) {
  told[name] = await exchanged(each).catch((error) => ({ error: error.error ?? error.message }));
}
console.log(JSON.stringify(told));
