// A machine and an API, by libraries of others: node access_token.mjs ISSUER CLIENT_ID RESOURCE SCOPE
// stdin: {"secret": "…", "others": {"name": "token", …}}. openid-client gets a token by client_credentials;
// oauth4webapi validates it as an API does (RFC 9068), and must refuse each of the others. Prints the claims and
// which of the others were taken; exits 1 with the error otherwise.
import { readFileSync } from "node:fs";
import * as oauth from "oauth4webapi";
import * as client from "openid-client";

const [issuer, clientId, resource, scope] = process.argv.slice(2);
const { secret, others } = JSON.parse(readFileSync(0, "utf8"));
// Plain HTTP is only for a loopback issuer, as in production.
const insecure = issuer.startsWith("http:");

try {
  const execute = insecure ? [client.allowInsecureRequests] : [];
  const config = await client.discovery(new URL(issuer), clientId, secret, undefined, { execute });
  const answer = await client.clientCredentialsGrant(config, { resource, scope });
  const validate = (token) =>
    oauth.validateJwtAccessToken(
      config.serverMetadata(),
      new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } }),
      resource,
      { [oauth.allowInsecureRequests]: insecure },
    );
  const claims = await validate(answer.access_token);
  const taken = [];
  for (const [name, token] of Object.entries(others)) {
    await validate(token).then(
      () => taken.push(name),
      () => undefined,
    );
  }
  console.log(JSON.stringify({ claims, taken, scope: answer.scope }));
} catch (error) {
  console.error(error.cause?.code ?? error.code ?? error.name, error.message);
  process.exitCode = 1;
}
