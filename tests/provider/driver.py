"""The app and relying parties around one provider: WebTest, a real SQLite store, a clock that tests move.

Nothing here knows the provider's inside: the app has the admin token and a sign-in page at `LOGIN_URL`, a relying
party verifies with PyJWT what `/oidc/jwks` publishes.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import jwt as pyjwt

from tests.http.driver import House
from tests.provider.browser import FORM, Browser, Landing, query_of
from tests.support.gunicorn import Answer

ISSUER: Final = "https://id.example.com"
LOGIN_URL: Final = "https://app.example.com/sign-in"
CALLBACK: Final = "https://rp.example.org/callback"
SIGNED_OUT: Final = "https://rp.example.org/signed-out"
SECRET: Final = hashlib.sha256(b"tests: client secret").hexdigest()
OTHER_CALLBACK: Final = "https://other.example.org/callback"
_MOST_STEPS: Final = 12

#: Every standard claim, each of its own JSON type (OpenID Connect Core §5.1).
CLAIMS: Final[Mapping[str, Any]] = {
    "name": "Ada Byron", "given_name": "Ada", "family_name": "Byron", "middle_name": "Augusta", "nickname": "ada",
    "preferred_username": "ada", "profile": "https://example.com/ada", "picture": "https://example.com/ada.png",
    "website": "https://example.com", "gender": "female", "birthdate": "1815-12-10", "zoneinfo": "Europe/London",
    "locale": "en-GB", "updated_at": 1_700_000_000, "email": "ada@example.com", "email_verified": True,
    "phone_number": "+44 20 7946 0000", "phone_number_verified": False,
    "address": {"formatted": "12 St James's Square, London", "country": "UK"},
}  # fmt: skip


class App:
    """The app next to the provider: its backend has the admin token."""

    def __init__(self, house: House) -> None:
        self._house = house

    def call(
        self, method: str, path: str, body: Any = None, *, host: str | None = None, query: str = ""
    ) -> Answer:
        """Ask the admin API."""
        issuer = urlsplit(self._house.settings.issuer or ISSUER)
        extra: dict[str, Any] = {} if body is None else {"json": body}
        return self._house.ask(
            method, issuer.path + path, host=host or issuer.netloc, admin=True, query=query, **extra
        )

    def interaction(self, landing: Landing) -> str:
        """The id that the sign-in page gets."""
        return query_of(landing.url)["interaction"]

    def report(self, interaction_id: str, what: str, body: Mapping[str, Any]) -> str:
        """Report a login, a consent or a rejection; where to send the browser."""
        answer = self.call("POST", f"/api/oidc/interactions/{interaction_id}/{what}", body)
        assert answer.status == 200, answer
        assert list(answer.json()) == ["redirect_to"]
        return str(answer.json()["redirect_to"])

    def by_backend(self, browser: Browser, landing: Landing, user: str = "ada", **fields: Any) -> Landing:
        """Way (b): report the sign-in, send the browser where the answer says."""
        return browser.go(self.report(self.interaction(landing), "login", {"user_id": user, **fields}))

    def by_cookie(self, browser: Browser, landing: Landing, user: str = "ada", **fields: Any) -> Landing:
        """Way (a): begin a session, set the shared cookie, send the browser to `return_to`."""
        self.sign_in(browser, user, **fields)
        return browser.go(query_of(landing.url)["return_to"])

    def sign_in(self, browser: Browser, user: str = "ada", **fields: Any) -> dict[str, Any]:
        """The app's own sign-in: a session, and the shared cookie in the browser."""
        begun = self.session(user, **fields)
        browser.set_cookie(self._house.settings.cookie_name, begun["token"])
        return begun

    def session(self, user: str = "ada", **fields: Any) -> dict[str, Any]:
        """A session without a browser that has its cookie."""
        answer = self.call("POST", "/api/auth/session", {"user_id": user, **fields})
        assert answer.status == 201, answer
        begun: dict[str, Any] = answer.json()
        return begun

    def grants(self, user: str = "ada") -> list[dict[str, Any]]:
        """What a user let clients have."""
        listed: list[dict[str, Any]] = self.call("GET", "/api/oidc/grants", query=f"user_id={user}").json()[
            "grants"
        ]
        return listed


@dataclass
class Request:
    """One authorization request: its parameters, and the verifier that only its client knows."""

    parameters: dict[str, str]
    code_verifier: str | None
    issuer: str = ISSUER

    @property
    def url(self) -> str:
        """The address to open."""
        return f"{self.issuer}/oidc/authorize?{urlencode(self.parameters)}"


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class RelyingParty:
    """One client of the provider; a secret of None makes it a public one."""

    def __init__(
        self, house: House, client_id: str, *, secret: str | None = SECRET, method: str = "client_secret_basic",
        redirect_uri: str = CALLBACK, issuer: str = ISSUER,
    ) -> None:  # fmt: skip
        self._house = house
        self.client_id, self.secret = client_id, secret
        self.method = "none" if secret is None else method
        self.redirect_uri, self.issuer = redirect_uri, issuer

    def request(self, **changes: str | None) -> Request:
        """A fresh request: `scope=openid`, a state of 128 characters, PKCE; None takes a parameter out."""
        verifier = secrets.token_urlsafe(48)
        usual = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": secrets.token_hex(64),
            "nonce": secrets.token_urlsafe(32),
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        parameters = {**usual, **changes}
        given = {name: value for name, value in parameters.items() if value is not None}
        return Request(given, verifier if "code_challenge" in given else None, self.issuer)

    def post(self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """Post a form to an endpoint, authenticated as this client is registered to."""
        form, headers = dict(form), dict(headers or {})
        if self.method == "client_secret_basic":
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form["client_id"] = self.client_id
            if self.secret is not None:
                form["client_secret"] = self.secret
        return self._ask("POST", path, body=urlencode(form).encode(), content_type=FORM, headers=headers)

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        issuer = urlsplit(self.issuer)
        return self._house.ask(method, issuer.path + path, host=issuer.netloc, **options)

    def redeem(self, request: Request, code: str, **changes: str | None) -> Answer:
        """Exchange a code; None takes a parameter out."""
        usual = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": request.parameters["redirect_uri"],
            "code_verifier": request.code_verifier,
        }
        form = {**usual, **changes}
        return self.post("/oidc/token", {name: value for name, value in form.items() if value is not None})

    def refresh(self, token: str, **more: str) -> Answer:
        """Exchange a refresh token."""
        return self.post("/oidc/token", {"grant_type": "refresh_token", "refresh_token": token} | more)

    def userinfo(self, access_token: str) -> Answer:
        """Userinfo, by GET and the header."""
        return self._ask("GET", "/oidc/userinfo", token=access_token)

    def introspect(self, token: str, **more: str) -> Answer:
        """Ask what a token is worth."""
        return self.post("/oidc/introspect", {"token": token} | more)

    def revoke(self, token: str, **more: str) -> Answer:
        """End a token."""
        return self.post("/oidc/revoke", {"token": token} | more)

    def verified(self, id_token: str) -> dict[str, Any]:
        """The claims of an ID token, verified by the published keys; its times against the test's clock."""
        answer = self._ask("GET", "/oidc/jwks")
        header = pyjwt.get_unverified_header(id_token)
        key = pyjwt.PyJWKSet.from_dict(answer.json())[header["kid"]]
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims: dict[str, Any] = pyjwt.decode(
            id_token, key, algorithms=["RS256"], audience=self.client_id, issuer=self.issuer, options=options
        )
        assert claims["iat"] <= self._house.clock() < claims["exp"]
        return claims


@dataclass
class Signed:
    """What a relying party has after a whole flow."""

    request: Request
    code: str
    tokens: dict[str, Any]
    claims: dict[str, Any]

    @property
    def access_token(self) -> str:
        """The access token."""
        return str(self.tokens["access_token"])


class Provider:
    """One provider, and everybody around it."""

    def __init__(self, house: House, clients: Sequence[Mapping[str, Any]]) -> None:
        self.house, self.clock, self.app = house, house.clock, App(house)
        self._clients = {str(client["client_id"]): client for client in clients}
        self.issuer = house.settings.issuer or ISSUER
        self.host = urlsplit(self.issuer).netloc

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """One bare request to the issuer's host."""
        return self.house.ask(method, path, **({"host": self.host} | options))

    def browser(self, issuer: str | None = None) -> Browser:
        """A fresh browser."""
        return Browser(self.house, issuer or self.issuer)

    def rp(self, client_id: str = "c-basic", **options: Any) -> RelyingParty:
        """One of the clients of the environment."""
        known = self._clients.get(client_id, {})
        usual = {
            "secret": known.get("client_secret", None if known else SECRET),
            "method": known.get("token_endpoint_auth_method", "client_secret_basic"),
            "redirect_uri": known.get("redirect_uris", [CALLBACK])[0],
            "issuer": self.issuer,
        }
        return RelyingParty(self.house, client_id, **usual | options)

    def finish(
        self, browser: Browser, landing: Landing, *, user: str = "ada", way: str = "backend", **fields: Any
    ) -> Landing:
        """Sign in and agree wherever that is asked, until the browser stands elsewhere or on an error page."""
        for _ in range(_MOST_STEPS):
            if landing.is_at(LOGIN_URL):
                sign_in = self.app.by_backend if way == "backend" else self.app.by_cookie
                landing = sign_in(browser, landing, user, **fields)
            elif landing.is_page() and "decision" in landing.text and landing.action.startswith(self.issuer):
                landing = browser.submit(landing, decision="allow")
            else:
                return landing
        raise AssertionError(f"no end of asking, at {landing.url}")

    def authorize(
        self, browser: Browser, request: Request, *, user: str = "ada", way: str = "backend", **fields: Any
    ) -> dict[str, str]:
        """Do what a request asks of the user; the parameters that came back, `state` and `iss` checked."""
        landing = self.finish(browser, browser.go(request.url), user=user, way=way, **fields)
        return self.answered(request, landing)

    def answered(self, request: Request, landing: Landing) -> dict[str, str]:
        """The parameters of an answer that reached the client, with the `state` and the `iss` that it must have."""
        by_form = request.parameters.get("response_mode") == "form_post"
        target = landing.action if by_form else landing.url.partition("?")[0]
        assert target == request.parameters["redirect_uri"].partition("?")[0], (landing.url, landing.answer)
        parameters = landing.parameters
        assert parameters.get("state") == request.parameters.get("state")
        assert parameters["iss"] == self.issuer
        return parameters

    def sign_in(
        self, browser: Browser | None = None, client_id: str = "c-basic", *, user: str = "ada", way: str = "backend",
        fields: Mapping[str, Any] | None = None, **parameters: str | None,
    ) -> Signed:  # fmt: skip
        """A whole flow, from the request to verified tokens."""
        rp = self.rp(client_id)
        request = rp.request(**parameters)
        code = self.authorize(browser or self.browser(), request, user=user, way=way, **(fields or {}))[
            "code"
        ]
        answer = rp.redeem(request, code)
        assert answer.status == 200, answer
        tokens = answer.json()
        return Signed(request, code, tokens, rp.verified(tokens["id_token"]) if "id_token" in tokens else {})
