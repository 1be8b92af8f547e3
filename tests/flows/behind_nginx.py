"""A provider behind the shipped nginx site, and a visitor who signs in through it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tests.support.app import query_of
from tests.support.gunicorn import ADMIN, Answer, Gunicorn, hold_port, rsa_pem
from tests.support.nginx import BACKEND, NginxSite

CLIENT, CLIENT_SECRET = "wiki", "wiki-secret-of-thirty-two-letters-and-more"
CALLBACK = "https://wiki.example.com/callback"
OUT = "https://wiki.example.com/out"
METADATA = {
    "client_id": CLIENT,
    "client_secret": CLIENT_SECRET,
    "redirect_uris": [CALLBACK],
    "post_logout_redirect_uris": [OUT],
    "first_party": True,
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Behind:
    """The two servers.

    Attributes:
        site: nginx.
        server: The gunicorn behind it.
    """

    site: NginxSite
    server: Gunicorn

    def admin(self, method: str, path: str, body: object = None) -> Answer:
        """Ask the admin API, past nginx."""
        return self.server.call(method, path, headers={"Authorization": f"Bearer {ADMIN}"}, body=body)


@contextlib.contextmanager
def behind_nginx(
    database_url: str, *, argv: tuple[str, ...] = (), edits: Mapping[str, str] | None = None, **settings: str
) -> Iterator[Behind]:
    """Start both; the database has its schema, or is an SQLite file to be made.

    Args:
        database_url: Where its state is.
        argv: More arguments for gunicorn.
        edits: As for `NginxSite`.
        settings: More settings of the provider.
    """
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(hold_port())
        port: int = holder.getsockname()[1]
        site = stack.enter_context(NginxSite(f"127.0.0.1:{port}", edits=edits))
        given: dict[str, Any] = {
            "DATABASE_URL": database_url,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_OIDC_ISSUER": site.origin,
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "PYLON_OIDC_CLIENTS": json.dumps([METADATA]),
            "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
            "PYLON_JWT_ALG": "RS256",
            "PYLON_JWT_AUDIENCE": "api",
        } | settings
        yield Behind(site, stack.enter_context(Gunicorn(port=port, argv=argv, **given)))


@dataclass
class Visitor:
    """A browser of few words, at an address of its own."""

    behind: Behind
    source: str = BACKEND
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, url: str, form: Mapping[str, str] | str | None = None) -> Answer:
        """Send a request with the cookies that it was given; a form goes in the body of a POST."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        body = None if form is None else form if isinstance(form, str) else urlencode(form)
        if not self.cookies:
            headers = {}
        answer = self.behind.site.call(
            method,
            target,
            source=self.source,
            headers=headers | (FORM if body is not None else {}),
            body=None if body is None else body.encode(),
        )
        for line in answer.headers.all("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return answer

    def sign_in(self, method: str = "GET", **more: str) -> Answer:
        """Ask for a code as a client sends a browser to do it, and let the app sign `ada` in; the last answer."""
        asked = authorization(**more)
        if method == "GET":
            answer = self.ask("GET", f"/oidc/authorize?{urlencode(asked, quote_via=quote)}")
        else:
            answer = self.ask("POST", "/oidc/authorize", asked)
        for _ in range(4):
            location = answer.headers.get("location", "")
            if answer.status != 303 or location.startswith(CALLBACK):
                return answer
            if location.startswith("https://app.example.com/"):
                waiting = query_of(location)["interaction"]
                path = f"/api/oidc/interactions/{waiting}/login"
                location = self.behind.admin("POST", path, {"user_id": "ada"}).json()["redirect_to"]
            answer = self.ask("GET", location)
        raise AssertionError("redirects without an end")

    def redeem(self, code: str) -> Answer:
        """Exchange the code, as the client."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        form |= {"client_id": CLIENT, "client_secret": CLIENT_SECRET}
        return self.ask("POST", "/oidc/token", form)


def authorization(**more: str) -> dict[str, str]:
    """The parameters of an authorization request."""
    return {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": CALLBACK,
        "scope": "openid profile",
        "nonce": "n-0S6_WzA2Mj",
    } | more
