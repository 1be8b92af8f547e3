"""A browser, the app and relying parties around one provider: WebTest, a real SQLite store, a clock that tests move.

Nothing here knows the provider's inside: the browser keeps cookies and follows redirects within the issuer, the app has
the admin token and a sign-in page at `LOGIN_URL`, a relying party verifies with PyJWT what `/oidc/jwks` publishes.
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus, unquote, urlencode, urlsplit

import jwt as pyjwt

from tests.http.driver import House
from tests.support.gunicorn import Answer

ISSUER: Final = "https://id.example.com"
LOGIN_URL: Final = "https://app.example.com/sign-in"
CALLBACK: Final = "https://rp.example.org/callback"
SIGNED_OUT: Final = "https://rp.example.org/signed-out"
SECRET: Final = hashlib.sha256(b"tests: client secret").hexdigest()
FORM: Final = "application/x-www-form-urlencoded"
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


def query_of(url: str) -> dict[str, str]:
    """The query of an address."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


@dataclass
class Cookie:
    """One cookie, as the browser keeps it."""

    name: str
    value: str
    path: str
    expires_at: float
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def goes_to(self, path: str) -> bool:
        """Whether it is sent to this path (RFC 6265 §5.1.4)."""
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")


class _Forms(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action, self.fields, self.found = "", {}, False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            self.action, self.found = values.get("action") or "", True
        if tag == "input" and values.get("name"):
            self.fields[str(values["name"])] = values.get("value") or ""


@dataclass
class Landing:
    """Where a browser came to rest: a page of the provider's, or an address elsewhere that was not opened."""

    url: str
    answer: Answer

    @property
    def parameters(self) -> dict[str, str]:
        """The query of the address, or the fields of the form_post page."""
        return self.fields if self.answer.status == 200 else query_of(self.url)

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the page's form."""
        return self._forms.fields

    @property
    def action(self) -> str:
        """Where the page's form goes; empty without a form."""
        return self._forms.action

    @property
    def text(self) -> str:
        """The page."""
        return self.answer.body.decode()

    @property
    def _forms(self) -> _Forms:
        forms = _Forms()
        forms.feed(self.text)
        return forms

    def is_at(self, url: str) -> bool:
        """Whether the browser was sent to this address, whatever its query."""
        return self.answer.status == 303 and self.url.partition("?")[0] == url

    def is_page(self, status: int = 200) -> bool:
        """Whether it rests on a page of the provider's."""
        kind = self.answer.headers.get("Content-Type", "")
        return self.answer.status == status and kind == "text/html; charset=utf-8" and "Location" not in self.answer.headers


class Browser:
    """Keeps cookies by path, security and age, and follows redirects within the issuer."""

    def __init__(self, house: House, host: str | None = None) -> None:
        self._house = house
        self.issuer = house.settings.issuer or f"https://{host}"
        self.cookies: dict[tuple[str, str], Cookie] = {}
        self.seen: list[tuple[str, Answer]] = []

    def set_cookie(self, name: str, value: str, *, path: str = "/", max_age_s: float = 86_400) -> None:
        """A cookie from elsewhere, as the app's under a shared domain."""
        self.cookies[name, path] = Cookie(name, value, path, self._house.clock() + max_age_s)

    def cookie_names(self, prefix: str = "") -> list[str]:
        """The names of the live cookies that begin so."""
        now = self._house.clock()
        return [cookie.name for cookie in self.cookies.values() if cookie.expires_at > now and cookie.name.startswith(prefix)]

    def ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, cross_site: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request to the issuer. A POST from another site carries no `Lax` cookie."""
        parts, now = urlsplit(url), self._house.clock()
        held = [cookie for cookie in self.cookies.values() if cookie.expires_at > now and cookie.goes_to(parts.path)]
        header = "; ".join(f"{cookie.name}={cookie.value}" for cookie in held)
        answer = self._house.ask(
            method,
            unquote(parts.path),
            host=parts.netloc,
            query=parts.query,
            body=None if form is None else urlencode(form).encode(),
            content_type=None if form is None else FORM,
            cookie=header if header and not (cross_site and method == "POST") else None,
            headers=headers,
        )
        for line in answer.headers.all("Set-Cookie"):
            self._keep(line)
        self.seen.append((url, answer))
        return answer

    def _keep(self, line: str) -> None:
        (morsel,) = SimpleCookie(line).values()
        path = morsel["path"] or "/"
        assert morsel["secure"] or self.issuer.startswith("http:"), line
        attributes = {name: value for name, value in morsel.items() if value}
        expires_at = self._house.clock() + int(morsel["max-age"])
        self.cookies[morsel.key, path] = Cookie(morsel.key, morsel.value, path, expires_at, attributes)

    def go(
        self, url: str, *, form: Mapping[str, str] | None = None, cross_site: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Landing:  # fmt: skip
        """Open an address, or post a form to it, and follow every redirect that stays at the issuer."""
        answer = self.ask("GET" if form is None else "POST", url, form=form, cross_site=cross_site, headers=headers)
        for _ in range(_MOST_STEPS):
            location = answer.headers.get("Location")
            if location is None:
                return Landing(url, answer)
            if not location.startswith(f"{self.issuer}/"):
                return Landing(location, answer)
            url, answer = location, self.ask("GET", location)
        raise AssertionError(f"too many redirects, at {url}")

    def submit(self, landing: Landing, **fields: str) -> Landing:
        """Press a button of the page's form."""
        return self.go(landing.action, form=landing.fields | fields, headers={"Sec-Fetch-Site": "same-origin"})


class App:
    """The app beside the provider: its backend has the admin token."""

    def __init__(self, house: House) -> None:
        self._house = house

    def call(self, method: str, path: str, body: Any = None, *, host: str | None = None, query: str = "") -> Answer:
        """Ask the admin API."""
        host = host or urlsplit(self._house.settings.issuer or ISSUER).netloc
        extra: dict[str, Any] = {} if body is None else {"json": body}
        return self._house.ask(method, path, host=host, admin=True, query=query, **extra)

    def interaction(self, landing: Landing) -> str:
        """The id that the sign-in page is told."""
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
        """A session, and nobody's cookie."""
        answer = self.call("POST", "/api/auth/session", {"user_id": user, **fields})
        assert answer.status == 201, answer
        begun: dict[str, Any] = answer.json()
        return begun

    def grants(self, user: str = "ada") -> list[dict[str, Any]]:
        """What a user let clients have."""
        listed: list[dict[str, Any]] = self.call("GET", "/api/oidc/grants", query=f"user_id={user}").json()["grants"]
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
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": secrets.token_hex(64),
            "nonce": secrets.token_urlsafe(32),
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        } | changes
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
        host = urlsplit(self.issuer).netloc
        return self._house.ask("POST", path, host=host, body=urlencode(form).encode(), content_type=FORM, headers=headers)

    def redeem(self, request: Request, code: str, **changes: str | None) -> Answer:
        """Exchange a code; None takes a parameter out."""
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": request.parameters["redirect_uri"],
            "code_verifier": request.code_verifier,
        } | changes
        return self.post("/oidc/token", {name: value for name, value in form.items() if value is not None})

    def refresh(self, token: str, **more: str) -> Answer:
        """Exchange a refresh token."""
        return self.post("/oidc/token", {"grant_type": "refresh_token", "refresh_token": token} | more)

    def userinfo(self, access_token: str) -> Answer:
        """Userinfo, by GET and the header."""
        return self._house.ask("GET", "/oidc/userinfo", host=urlsplit(self.issuer).netloc, token=access_token)

    def introspect(self, token: str, **more: str) -> Answer:
        """Ask what a token is worth."""
        return self.post("/oidc/introspect", {"token": token} | more)

    def revoke(self, token: str, **more: str) -> Answer:
        """End a token."""
        return self.post("/oidc/revoke", {"token": token} | more)

    def verified(self, id_token: str) -> dict[str, Any]:
        """The claims of an ID token, verified by the published keys; its times against the test's clock."""
        answer = self._house.ask("GET", "/oidc/jwks", host=urlsplit(self.issuer).netloc)
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

    def browser(self) -> Browser:
        """A fresh browser."""
        return Browser(self.house)

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

    def finish(self, browser: Browser, landing: Landing, *, user: str = "ada", way: str = "backend", **fields: Any) -> Landing:
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
        code = self.authorize(browser or self.browser(), request, user=user, way=way, **(fields or {}))["code"]
        answer = rp.redeem(request, code)
        assert answer.status == 200, answer
        tokens = answer.json()
        return Signed(request, code, tokens, rp.verified(tokens["id_token"]) if "id_token" in tokens else {})
