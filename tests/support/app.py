"""The provider's neighbours, real and small: the app that it runs next to, and a relying party on another origin.

Each is an HTTP server on a loopback port, in a thread of its own. A test that puts nginx before them tells them
their public origins. The app signs in anyone who fills in its form, in the way that the pressed button names: `backend`
reports the sign-in to the provider and goes where that says, `cookie` sets the shared session cookie and goes back.
"""

from __future__ import annotations

import base64
import hashlib
import html
import http.server
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
import requests

from tests.support.gunicorn import ADMIN
from tests.support.stopping import Stoppable

#: The claims of the user that the app signs in, in addition to their name.
CLAIMS = {
    "given_name": "Ada",
    "family_name": "Byron",
    "email": "ada@example.com",
    "email_verified": True,
    "locale": "en-GB",
}


_LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 48" width="96" height="48">'
    '<rect width="96" height="48" rx="8" fill="#7a2"/><circle cx="48" cy="24" r="14" fill="#fff"/></svg>'
)


@dataclass(frozen=True)
class Asked:
    """One request, parsed."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    cookies: Mapping[str, str]


@dataclass(frozen=True)
class Page:
    """One answer: an HTML page, or a redirect with an empty one."""

    body: str = ""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def page(title: str, body: str = "", status: int = 200) -> Page:
    """A whole HTML page; `body` is HTML."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,"><title>{title}</title>'
    return Page(f"{head}<h1>{title}</h1>{body}</html>", status)


def go_to(uri: str, *headers: tuple[str, str]) -> Page:
    """A redirect with a GET."""
    return Page("", 303, (("Location", uri), *headers))


def hidden(values: Mapping[str, str]) -> str:
    """Values as the hidden fields of a form."""
    fields = ((html.escape(name), html.escape(value)) for name, value in values.items())
    return "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields)


def with_query(uri: str, values: Mapping[str, str]) -> str:
    """The address with a query."""
    return f"{uri}?{urlencode(values)}"


def query_of(uri: str) -> dict[str, str]:
    """The query of an address; empty values are kept."""
    return dict(parse_qsl(urlsplit(uri).query, keep_blank_values=True))


def direct() -> requests.Session:
    """A session of requests that takes nothing from the environment: no proxy, no `.netrc`."""
    session = requests.Session()
    session.trust_env = False
    return session


class Site(Stoppable):
    """An HTTP server on a loopback port, which answers what `answer` says.

    Attributes:
        port: Where it listens.
        origin: Its public origin: `http://localhost:<port>` until a test says otherwise.
    """

    def __init__(self) -> None:
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def _serve(self) -> None:
                target = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                cookies = {
                    name: morsel.value for name, morsel in SimpleCookie(self.headers.get("Cookie")).items()
                }
                asked = Asked(
                    self.command,
                    target.path,
                    dict(parse_qsl(target.query, keep_blank_values=True)),
                    dict(parse_qsl(body, keep_blank_values=True)),
                    cookies,
                )
                try:
                    answer = site.answer(asked)
                except Exception as error:  # the test reads it from the page
                    answer = page("It failed", f"<pre>{html.escape(repr(error))}</pre>", 500)
                data = answer.body.encode()
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                if "Content-Type" not in dict(answer.headers):
                    self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.origin = f"http://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, asked: Asked) -> Page:
        """What to answer."""
        return page(type(self).__name__, html.escape(str(dict(asked.query))))

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class App(Site):
    """The app: its pages, and its backend.

    Attributes:
        provider: The address at which the backend reaches the provider, with the issuer's path.
        cookie_domain: Of the shared session cookie; None sets it for this host.
        secure: Whether the cookie is only for https.
    """

    def __init__(self) -> None:
        super().__init__()
        self.provider = ""
        self.cookie_domain: str | None = None
        self.secure = False

    # Its backend

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the provider's API with the admin token.

        Raises:
            requests.HTTPError: When it refuses.
        """
        with direct() as session:
            answer = session.request(
                method,
                self.provider + path,
                json=body,
                headers={"Authorization": f"Bearer {ADMIN}"},
                timeout=20,
            )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def interaction(self, interaction_id: str) -> dict[str, Any]:
        """What the provider says about an interaction."""
        shown: dict[str, Any] = self.call("GET", f"/api/oidc/interactions/{interaction_id}")
        return shown

    def login(self, interaction_id: str, user_id: str, **fields: object) -> str:
        """Way (b): report a sign-in; where to send the browser."""
        return self._report(interaction_id, "login", sign_in_body(user_id) | fields)

    def consent(self, interaction_id: str, **fields: object) -> str:
        """Report an agreement; where to send the browser."""
        return self._report(interaction_id, "consent", fields)

    def reject(self, interaction_id: str, **fields: object) -> str:
        """Report a refusal; where to send the browser."""
        return self._report(interaction_id, "reject", fields)

    def _report(self, interaction_id: str, what: str, body: object) -> str:
        answer = self.call("POST", f"/api/oidc/interactions/{interaction_id}/{what}", body)
        return str(answer["redirect_to"])

    def session(self, user_id: str, **fields: object) -> str:
        """Way (a): make a session; its token."""
        return str(self.call("POST", "/api/auth/session", sign_in_body(user_id) | fields)["token"])

    def sessions(self, user_id: str) -> list[dict[str, Any]]:
        """The live sessions of a user."""
        listed: list[dict[str, Any]] = self.call("GET", f"/api/auth/users/{user_id}/sessions")["sessions"]
        return listed

    def grants(self, user_id: str) -> list[dict[str, Any]]:
        """What a user let clients have."""
        listed: list[dict[str, Any]] = self.call("GET", f"/api/oidc/grants?user_id={user_id}")["grants"]
        return listed

    # Its pages

    def answer(self, asked: Asked) -> Page:
        """`/sign-in`, `/consent`, `/sign-out`, and anything else as a plain page."""
        known = {"/sign-in": self._sign_in, "/consent": self._consent, "/sign-out": self._sign_out}
        return known[asked.path](asked) if asked.path in known else page("The app")

    def _sign_in(self, asked: Asked) -> Page:
        if asked.method == "GET":
            return page(
                "Sign in to the app",
                f'<form method="post" action="/sign-in">{hidden(asked.query)}<input name="user_id" value="ada">'
                '<button name="way" value="backend">By the backend</button>'
                '<button name="way" value="cookie">By the cookie</button></form>',
            )
        user_id = asked.form["user_id"]
        if asked.form["way"] == "backend":
            return go_to(self.login(asked.form["interaction"], user_id))
        return go_to(asked.form["return_to"], ("Set-Cookie", self._cookie(self.session(user_id), 3600)))

    def _consent(self, asked: Asked) -> Page:
        if asked.method == "GET":
            waiting = self.interaction(asked.query["interaction"])
            who = html.escape(waiting["client"]["client_name"])
            return page(
                "The app asks",
                f'<p>{who}: {html.escape(waiting["scope"])}</p><form method="post" action="/consent">'
                f'{hidden(asked.query)}<button name="decision" value="allow">Allow</button>'
                '<button name="decision" value="deny">Deny</button></form>',
            )
        report = self.consent if asked.form["decision"] == "allow" else self.reject
        return go_to(report(asked.form["interaction"]))

    def _sign_out(self, asked: Asked) -> Page:
        return go_to(asked.query["return_to"], ("Set-Cookie", self._cookie("", 0)))

    def _cookie(self, value: str, max_age_s: int) -> str:
        domain = f"; Domain={self.cookie_domain}" if self.cookie_domain else ""
        secure = "; Secure" if self.secure else ""
        return f"pylon_session={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{domain}{secure}"


def sign_in_body(user_id: str) -> dict[str, Any]:
    """What the app says about whom it has signed in."""
    return {"user_id": user_id, "claims": {**CLAIMS, "name": f"{user_id} Byron"}, "amr": ["pwd"]}


@dataclass
class Request:
    """One authorization request of the relying party, and what came of it.

    Attributes:
        state, nonce, code_verifier: As they were sent, or are to be.
        client_id: Who asked.
        method: How the answer came.
        answer: The parameters of the answer; empty until it has come.
        tokens: What the token endpoint gave.
        claims: Of the verified ID token.
    """

    state: str
    nonce: str
    code_verifier: str
    client_id: str
    method: str = ""
    answer: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)


class RelyingParty(Site):
    """A client on an origin of its own: it begins, verifies, redeems, and sends its user on to a third origin.

    Attributes:
        clients: Client ids and their secrets (None for a public client).
        issuer: Whom it trusts.
        verify: A CA's path, for an issuer with TLS.
        landing: Where the callback sends the browser on to.
        requests: By `state`.
    """

    def __init__(self, clients: Mapping[str, str | None]) -> None:
        super().__init__()
        self.clients = dict(clients)
        self.issuer = ""
        self.verify: str | bool = True
        self.landing = ""
        self.requests: dict[str, Request] = {}

    @property
    def redirect_uri(self) -> str:
        """Its callback."""
        return f"{self.origin}/callback"

    def authorization(self, client_id: str, **more: str) -> tuple[Request, dict[str, str]]:
        """A fresh request, and its parameters.

        Args:
            client_id: Who asks.
            more: More parameters, or others; `scope` is all of a usual client's.
        """
        state, nonce, code_verifier = (secrets.token_urlsafe(32) for _ in range(3))
        request = Request(state, nonce, code_verifier, client_id)
        self.requests[request.state] = request
        digest = hashlib.sha256(request.code_verifier.encode()).digest()
        return request, {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid profile email offline_access",
            "state": request.state,
            "nonce": request.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        } | more

    def begin(self, client_id: str, **more: str) -> tuple[Request, str]:
        """A fresh request, and the address to open."""
        request, parameters = self.authorization(client_id, **more)
        return request, with_query(f"{self.issuer}/oidc/authorize", parameters)

    def answer(self, asked: Asked) -> Page:
        """`/callback` takes an answer; `/post` is a form that posts a request; the rest are pages."""
        if asked.path == "/callback":
            request = self.take(asked.form if asked.method == "POST" else asked.query, asked.method)
            return go_to(with_query(self.landing or f"{self.origin}/landed", {"state": request.state}))
        if asked.path == "/logo.svg":
            return Page(_LOGO, headers=(("Content-Type", "image/svg+xml"),))
        if asked.path == "/post":
            form = f'<form method="post" action="{self.issuer}/oidc/authorize">{hidden(asked.query)}'
            return page("Post it", f"{form}<button>Go</button></form>")
        return page(f"The client: {asked.path}", html.escape(str(dict(asked.query))))

    def take(self, answer: Mapping[str, str], method: str = "GET") -> Request:
        """Take the answer to a request: check `state` and `iss`, redeem a code, verify the ID token.

        Raises:
            AssertionError: When something in it is not as it must be.
        """
        request = self.requests[answer["state"]]
        assert not request.answer, "this request was answered before"
        assert answer["iss"] == self.issuer
        request.answer, request.method = dict(answer), method
        if "code" in answer:
            request.tokens = self.token(request.client_id, **self.code_grant(request, answer["code"])).json()
            request.claims = self.verified(request)
        return request

    def code_grant(self, request: Request, code: str) -> dict[str, str]:
        """The parameters that redeem a code."""
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": request.code_verifier,
        }

    def verified(self, request: Request) -> dict[str, Any]:
        """The claims of the request's ID token, after its signature and its usual claims were checked."""
        keys = jwt.PyJWKSet.from_dict(self.get("/oidc/jwks").json())
        id_token = request.tokens["id_token"]
        key = keys[jwt.get_unverified_header(id_token)["kid"]]
        claims: dict[str, Any] = jwt.decode(
            id_token, key, algorithms=["RS256"], audience=request.client_id, issuer=self.issuer
        )
        assert claims["nonce"] == request.nonce
        assert claims["auth_time"] <= time.time() + 1
        return claims

    def token(self, client_id: str, **form: str) -> requests.Response:
        """Ask the token endpoint."""
        return self.post(client_id, "/oidc/token", **form)

    def refresh(self, client_id: str, refresh_token: str) -> requests.Response:
        """Exchange a refresh token."""
        return self.token(client_id, grant_type="refresh_token", refresh_token=refresh_token)

    def post(self, client_id: str, path: str, **form: str) -> requests.Response:
        """Post a form as a client: with its secret by `Basic`, or with its bare id."""
        secret = self.clients[client_id]
        auth = None if secret is None else (client_id, secret)
        data = form | ({"client_id": client_id} if secret is None else {})
        with direct() as session:
            return session.post(self.issuer + path, data=data, auth=auth, verify=self.verify, timeout=20)

    def get(self, path: str, access_token: str | None = None) -> requests.Response:
        """Get something of the provider's, userinfo mostly."""
        headers = {} if access_token is None else {"Authorization": f"Bearer {access_token}"}
        with direct() as session:
            return session.get(self.issuer + path, headers=headers, verify=self.verify, timeout=20)

    def userinfo(self, access_token: str) -> requests.Response:
        """Ask who it is."""
        return self.get("/oidc/userinfo", access_token)
