// jose's verification of a token: node verify.mjs ISSUER AUDIENCE < token
// The keys are those of the jwks_uri in the issuer's discovery. Prints payload and protected header as JSON;
// exits 1 with the error's code otherwise.
import { text } from "node:stream/consumers";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [issuer, audience] = process.argv.slice(2);

try {
  const response = await fetch(`${issuer}/.well-known/openid-configuration`);
  const { jwks_uri } = await response.json();
  const token = (await text(process.stdin)).trim();
  const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(jwks_uri)), {
    issuer,
    audience,
  });
  console.log(JSON.stringify({ payload, protectedHeader }));
} catch (error) {
  console.error(error.code ?? error.name, error.message);
  process.exitCode = 1;
}
