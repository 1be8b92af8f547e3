// jose as a relying party that keeps the key set for its full max-age: node rotation.mjs JWKS_URI MAX_AGE_MS
// Reads a token a line, prints a line for each: ok, or the code of the error.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [uri, maxAge] = process.argv.slice(2);
// An unknown kid is looked for again no sooner than the max-age of the set that lacks it.
const keys = createRemoteJWKSet(new URL(uri), { cacheMaxAge: Number(maxAge), cooldownDuration: Number(maxAge) });

for await (const token of createInterface({ input: process.stdin })) {
  try {
    await jwtVerify(token, keys, { clockTolerance: 1 });
    console.log("ok");
  } catch (error) {
    console.log(error.code ?? error.name);
  }
}
