// openid-client lets a device in: node device_flow.mjs '{"issuer", "client_id"}'
// Prints what the device shows as one line of JSON, waits until its user has decided, and prints the claims of the ID
// token and of userinfo as a second one. Exits 1 with the error's code where the library refuses something.
import dns from "node:dns";
import * as client from "openid-client";

const { issuer, client_id } = JSON.parse(process.argv[2]);

// The names of tests are this machine's.
const { lookup } = dns;
dns.lookup = (name, ...more) => lookup(name.endsWith(".test") ? "localhost" : name, ...more);

async function deviceFlow() {
  const execute = issuer.startsWith("http:") ? [client.allowInsecureRequests] : [];
  const config = await client.discovery(new URL(issuer), client_id, undefined, client.None(), { execute });
  const codes = await client.initiateDeviceAuthorization(config, { scope: "openid email offline_access" });
  console.log(JSON.stringify(codes));
  const tokens = await client.pollDeviceAuthorizationGrant(config, codes);
  const claims = tokens.claims();
  const userinfo = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
  return { claims, userinfo, refreshed: refreshed.access_token !== tokens.access_token };
}

deviceFlow().then(
  (done) => console.log(JSON.stringify(done)),
  (error) => {
    console.error(error.error ?? error.code ?? error);
    process.exitCode = 1;
  },
);
