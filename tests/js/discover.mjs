// openid-client's discovery: node discover.mjs ISSUER
// Prints what it accepted of the issuer's metadata as JSON; exits 1 with the error's code otherwise.
import * as client from "openid-client";

const issuer = new URL(process.argv[2]);
// Plain HTTP is only for a loopback issuer, as in production.
const execute = issuer.protocol === "http:" ? [client.allowInsecureRequests] : [];

try {
  const config = await client.discovery(issuer, "any-client", undefined, client.None(), { execute });
  console.log(JSON.stringify(config.serverMetadata()));
} catch (error) {
  console.error(error.cause?.code ?? error.code ?? error.name, error.message);
  process.exitCode = 1;
}
