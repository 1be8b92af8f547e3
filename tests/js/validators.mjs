// APIs by libraries of others that know RFC 9068: node validators.mjs ISSUER AUDIENCE
// stdin: {"name": "token", …}. Prints for each library which of the tokens it takes.
import { readFileSync } from "node:fs";
import express from "express";
import { auth } from "express-oauth2-jwt-bearer";
import * as oauth from "oauth4webapi";

const [issuer, audience] = process.argv.slice(2);
const tokens = JSON.parse(readFileSync(0, "utf8"));
// Plain HTTP is only for a loopback issuer, as in production.
const options = { [oauth.allowInsecureRequests]: issuer.startsWith("http:") };

async function takenBy(validate) {
  const taken = [];
  for (const [name, token] of Object.entries(tokens)) {
    if (await validate(token)) taken.push(name);
  }
  return taken;
}

const url = new URL(issuer);
const server = await oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, options));
const byOauth4webapi = await takenBy((token) =>
  oauth
    .validateJwtAccessToken(
      server,
      new Request("https://api.example.com/", { headers: { authorization: `Bearer ${token}` } }),
      audience,
      options,
    )
    .then(
      () => true,
      () => false,
    ),
);

const app = express();
app.use(auth({ issuerBaseURL: issuer, audience, tokenSigningAlg: "ES256", strict: true }));
app.get("/", (request, response) => response.json(request.auth.payload));
app.use((error, _request, response, _next) => response.status(error.status ?? 500).end());
const listening = app.listen(0, "127.0.0.1");
await new Promise((resolve) => listening.once("listening", resolve));
const byExpress = await takenBy(async (token) => {
  const answer = await fetch(`http://127.0.0.1:${listening.address().port}/`, {
    headers: { authorization: `Bearer ${token}` },
  });
  if (answer.status !== 200 && answer.status !== 401) throw new Error(`${answer.status}`);
  return answer.status === 200;
});
listening.close();
console.log(JSON.stringify({ oauth4webapi: byOauth4webapi, "express-oauth2-jwt-bearer": byExpress }));
