// An MCP client that nobody has registered: node client.mjs SERVER REDIRECT_HOST [CLIENT_DOCUMENT]
// It prints the address to sign in at, waits for the browser at its own address, and prints what the tool says.
import { createServer } from "node:http";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [serverUrl, host, clientMetadataUrl] = process.argv.slice(2);
let back;
const came = new Promise((resolve) => { back = resolve; });
const listening = createServer((request, answer) => {
  answer.end();
  back(new URL(request.url, "http://localhost").searchParams);
});
await new Promise((resolve) => listening.listen(0, "127.0.0.1", resolve));
const redirectUrl = `http://${host}:${listening.address().port}/callback`;

const kept = {};
const authProvider = {
  redirectUrl,
  clientMetadataUrl,
  clientMetadata: {
    client_name: "An agent",
    redirect_uris: [redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => (kept.state = crypto.randomUUID()),
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  redirectToAuthorization: (url) => console.log(JSON.stringify({ open: url.href })),
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  codeVerifier: () => kept.verifier,
};

const asked = [];
const seen = (url, init) => {
  asked.push(`${init?.method ?? "GET"} ${url}`);
  return fetch(url, init);
};
const transport = () => new StreamableHTTPClientTransport(new URL(serverUrl), { authProvider, fetch: seen });
const client = new Client({ name: "agent", version: "1.0.0" });
const first = transport();
try {
  await client.connect(first);
  throw new Error("the server let in a client without a token");
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
}
const answer = await came;
listening.close();
if (answer.get("state") !== kept.state) throw new Error(`state is ${answer.get("state")}`);
await first.finishAuth(answer.get("code"));
await client.connect(transport());
const result = await client.callTool({ name: "whoami", arguments: {} });
console.log(JSON.stringify({
  tool: result.content[0].text,
  token: kept.tokens.access_token,
  refresh_token: kept.tokens.refresh_token,
  client_id: kept.client.client_id,
  asked,
}));
await client.close();
