"""An MCP client that nobody has registered: python client.py SERVER REDIRECT_HOST [CLIENT_DOCUMENT]

It prints the address to sign in at, waits for the browser at its own address, and prints what the tool says.
"""

import asyncio
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

server_url, host, *document = sys.argv[1:]
asked = []


class Kept:
    """Tokens and client, in memory."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Callback(BaseHTTPRequestHandler):
    """Where the browser comes back to."""

    def do_GET(self):
        self.server.came = dict(parse_qsl(urlsplit(self.path).query))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


async def main():
    listening = HTTPServer(("127.0.0.1", 0), Callback)
    kept = Kept()

    async def open_browser(url):
        print(json.dumps({"open": url}), flush=True)

    async def came_back():
        await asyncio.to_thread(listening.handle_request)
        return AuthorizationCodeResult(
            **{name: listening.came.get(name) for name in ("code", "state", "iss")}
        )

    provider = OAuthClientProvider(
        server_url,
        OAuthClientMetadata(
            client_name="An agent", redirect_uris=[f"http://{host}:{listening.server_port}/callback"]
        ),
        kept,
        open_browser,
        came_back,
        client_metadata_url=document[0] if document else None,
    )

    async def seen(request):
        asked.append(f"{request.method} {request.url}")

    http = httpx2.AsyncClient(auth=provider, event_hooks={"request": [seen]}, timeout=20)
    async with http, Client(streamable_http_client(server_url, http_client=http)) as client:
        result = await client.call_tool("whoami", {})
    got = {
        "tool": result.content[0].text,
        "token": kept.tokens.access_token,
        "refresh_token": kept.tokens.refresh_token,
        "client_id": kept.client.client_id,
        "asked": asked,
    }
    print(json.dumps(got), flush=True)


asyncio.run(main())
