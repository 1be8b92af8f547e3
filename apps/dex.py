"""Dex, which hands the sign-in on to a client of its own."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from apps.application import Application, Person, Running, shell_of
from apps.browser import Browser
from apps.installing import go_folder, go_program, go_version
from apps.stand import Stand

MODULE = "github.com/dexidp/dex"
_CLIENT = {"client_id": "test", "client_secret": "a secret of this test only"}
_OWN = """
issuer: {url}
staticClients: [{{id: {client_id}, secret: {client_secret}, name: test, redirectURIs: ["{url}/healthz"]}}]
"""


class _Dex(Running):
    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        back = f"{self._url}/healthz"
        asked = {"client_id": "test", "redirect_uri": back, "response_type": "code", "state": "1"}
        page = browser.open(f"{self._url}/auth?{urlencode(asked | {'scope': 'openid profile email groups'})}")
        code = parse_qs(urlsplit(page.url).query).get("code")
        assert code, f"{page.url}: {page.text[:3000]}"
        form = {"grant_type": "authorization_code", "code": code[0], "redirect_uri": back} | _CLIENT
        token: str = browser.http.post(f"{self._url}/token", data=form, timeout=20).json()["id_token"]
        payload = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return Person(claims["name"], claims["email"], claims.get("groups"))


class Dex(Application):
    """https://github.com/dexidp/dex, in the newest version that the Go module proxy has."""

    name = "dex"

    def version(self) -> str:
        return go_version("dex", MODULE)

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        program = go_program("dex")
        web = go_folder(program, MODULE) / "web"
        with stand.port() as port:
            url = f"http://localhost:{port}"
            made = stand.register(self.name, url)
            (stand.folder / "dex.yaml").write_text(made["paste"] + _OWN.format(url=url, **_CLIENT))
            # It knows no PKCE yet, and the page says what to do then.
            stand.command(*shell_of(self.name, made["client_id"]))
            command = [program, "dex.yaml", f"127.0.0.1:{port}", web]
            with stand.process(command, ready=f"{url}/healthz"):
                yield _Dex(url)


APPS: list[Application] = [Dex()]
