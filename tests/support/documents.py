"""A host that publishes the documents of clients over TLS, and counts who asks."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.outbound.attacking import Attacker, Authority

Published = Mapping[str, Any] | bytes | Callable[[socket.socket], None]


class Publisher:
    """Answers at `https://127.0.0.1:<port>/…` with what is published there, or 404.

    Attributes:
        authority: signed its certificate; `authority.file` is for `PYLON_OUTBOUND_CA_FILE`.
        at: path -> a document; the bytes of an answer; or a function that gets the connection.
        asked: the path of each request, in order.
        cache: the `Cache-Control` of documents.
    """

    def __init__(self, folder: Path, name: str = "127.0.0.1") -> None:
        self.authority = Authority(folder)
        self.at: dict[str, Published] = {}
        self.asked: list[str] = []
        self.cache = ""
        self._server = Attacker(self._serve, self.authority.server(name))
        self.origin = f"https://{name}:{self._server.port}"

    @property
    def environ(self) -> dict[str, str]:
        """The settings of a provider in dev mode that may ask this host."""
        return {
            "PYLON_DEV_MODE": "1",
            "PYLON_OIDC_CLIENT_DOCUMENTS": "on",
            "PYLON_OUTBOUND_ALLOW": "127.0.0.0/8",
            "PYLON_OUTBOUND_CA_FILE": str(self.authority.file),
        }

    def publish(self, path: str = "/client.json", **members: Any) -> str:
        """Publish a document of a public client; the client id. Members of None are left out."""
        client_id = self.origin + path
        usual = {
            "client_id": client_id,
            "client_name": "An agent",
            "redirect_uris": ["https://rp.example.org/callback"],
            "token_endpoint_auth_method": "none",
        }
        self.at[path] = {name: value for name, value in {**usual, **members}.items() if value is not None}
        return client_id

    def _serve(self, wire: socket.socket) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard:
            if not (data := wire.recv(65536)):
                return
            heard += data
        path = heard.split(b" ", 2)[1].decode()
        self.asked.append(path)
        published = self.at.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        if callable(published):
            published(wire)
            return
        wire.sendall(published if isinstance(published, bytes) else self.answer(json.dumps(published)))

    def answer(self, text: str, *headers: str) -> bytes:
        """An answer with this body."""
        body = text.encode()
        caching = [f"Cache-Control: {self.cache}"] if self.cache else []
        lines = [
            "HTTP/1.1 200 OK",
            f"Content-Length: {len(body)}",
            *(headers or ["Content-Type: application/json"]),
            *caching,
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.__exit__(*failure)
