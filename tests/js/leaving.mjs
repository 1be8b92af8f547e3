// jose as a service that leaves HS256: node leaving.mjs ISSUER AUDIENCE SECRET
// Reads "KNOWS TOKEN" a line, where KNOWS is what it knows then: old, both or new; prints ok or the error for each.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";

const [issuer, audience, secret] = process.argv.slice(2);
const keys = { HS256: new TextEncoder().encode(secret), ES256: createRemoteJWKSet(new URL(`${issuer}/oidc/jwks`)) };
const known = { old: ["HS256"], both: ["HS256", "ES256"], new: ["ES256"] };

for await (const line of createInterface({ input: process.stdin })) {
  const [knows, token] = line.split(" ");
  try {
    const { alg } = decodeProtectedHeader(token);
    if (!known[knows].includes(alg)) throw new Error(`does not know ${alg}`);
    await jwtVerify(token, keys[alg], { algorithms: [alg], issuer, audience });
    console.log("ok");
  } catch (error) {
    console.log(`${error.code ?? error.name}: ${error.message}`);
  }
}
