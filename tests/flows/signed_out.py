"""A small service whose users are signed out by logout tokens (Back-Channel Logout 1.0 §2.6), verified by PyJWT.

python -m tests.flows.signed_out CLIENT_ID. It prints its port. POST /sign-in {issuer, id_token} begins a session,
GET /session/SID asks for it, POST /backchannel ends it.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from urllib.request import urlopen

import jwt

EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Service:
    """Its sessions, by `sid`."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._issuer = ""
        self._keys: jwt.PyJWKClient | None = None
        self.sessions: set[str] = set()
        self._seen: set[str] = set()

    def sign_in(self, body: bytes) -> None:
        """Begin the session of an ID token."""
        given = json.loads(body)
        self._issuer = given["issuer"]
        with urlopen(f"{self._issuer}/.well-known/openid-configuration") as answer:
            self._keys = jwt.PyJWKClient(json.load(answer)["jwks_uri"])
        self.sessions.add(self._verified(given["id_token"], ["sid"])["sid"])

    def sign_out(self, body: bytes) -> None:
        """End the session of a logout token."""
        (token,) = parse_qs(body.decode())["logout_token"]
        if jwt.get_unverified_header(token).get("typ") != "logout+jwt":
            raise ValueError("typ")
        claims = self._verified(token, ["iat", "exp", "jti", "events", "sid", "sub"])
        if claims["events"] != {EVENT: {}} or "nonce" in claims:
            raise ValueError("events")
        if claims["jti"] not in self._seen:
            self.sessions.discard(claims["sid"])
        self._seen.add(claims["jti"])

    def _verified(self, token: str, required: list[str]) -> dict[str, Any]:
        assert self._keys is not None
        key = self._keys.get_signing_key_from_jwt(token)
        options: Any = {"require": required}
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=["RS256"], audience=self._client_id, issuer=self._issuer, options=options
        )
        return claims


def main() -> None:
    """Serve until it is killed."""
    service = Service(sys.argv[1])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self.path.removeprefix("/session/") in service.sessions else 404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                (service.sign_in if self.path == "/sign-in" else service.sign_out)(body)
            except (jwt.PyJWTError, ValueError, KeyError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                self._answer(400)
            else:
                self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
