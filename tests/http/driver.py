"""The application under WebTest: a real SQLite store, a clock that tests move, and one way to ask.

Nothing is remembered between two questions: no cookie jar, no default header but `Host`.
"""

from __future__ import annotations

import io
import json as jsonlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Final

import jwt as pyjwt
from webtest import TestApp
from webtest.app import TestRequest

from service.settings import Settings
from tests.support.gunicorn import ADMIN, Answer, Headers

HOST: Final = "id.example.test"
ISSUER: Final = f"https://{HOST}"
START: Final = 1_800_000_000
DAY_S: Final = 86_400
COOKIE: Final = "pylon_session"
_ABSENT: Final = object()


class Clock:
    """Unix s, standing still until a test moves it."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class _NoCookies:
    """A cookie jar that keeps nothing: each request carries exactly what the test says."""

    def add_cookie_header(self, _request: object) -> None:
        """Add none."""

    def extract_cookies(self, _response: object, _request: object) -> None:
        """Keep none."""


@dataclass
class House:
    """One application and what it stands on."""

    app: Any
    settings: Settings
    clock: Clock
    log: io.StringIO = field(repr=False)

    def __post_init__(self) -> None:
        self._webtest = TestApp(self.app, cookiejar=_NoCookies())
        self._logged_before = len(self.log.getvalue())

    def ask(
        self,
        method: str,
        path: str,
        *,
        host: str | None = HOST,
        protocol: str = "HTTP/1.1",
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json: Any = _ABSENT,
        content_type: str | None = _ABSENT,
        token: str | None = None,
        admin: bool = False,
        cookie: str | None = None,
        environ: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send one request.

        Args:
            method: Any word.
            path: The decoded path; non-ASCII as a WSGI server hands it on (Latin-1).
            host: The `Host` header; None for none.
            protocol: The request line's version.
            query: The query string, without `?`.
            headers: More headers.
            body: The raw body.
            json: A body to serialise.
            content_type: `application/json` where there is a body, unless said; None for none.
            token: A session token to show as a bearer.
            admin: Show the admin token.
            cookie: The value of the session cookie, or a whole `Cookie` header when it holds a `=`.
            environ: More of the WSGI environment, None to remove; the last word.
        """
        request = TestRequest.blank("/")
        env: dict[str, Any] = request.environ
        env.pop("HTTP_HOST", None)
        env |= {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "RAW_URI": path + (f"?{query}" if query else ""),
            "SERVER_PROTOCOL": protocol,
            "REMOTE_ADDR": "203.0.113.9",
        }
        if host is not None:
            env["HTTP_HOST"] = host
        if json is not _ABSENT:
            body = jsonlib.dumps(json).encode()
        if content_type is _ABSENT:
            content_type = "application/json" if body is not None else None
        if body is not None:
            env |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        if content_type is not None:
            env["CONTENT_TYPE"] = content_type
        if admin:
            env["HTTP_AUTHORIZATION"] = f"Bearer {ADMIN}"
        if token is not None:
            env["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        if cookie is not None:
            name = self.settings.cookie_name
            env["HTTP_COOKIE"] = cookie if "=" in cookie else f"{name}={cookie}"
        for name, value in (headers or {}).items():
            env[f"HTTP_{name.upper().replace('-', '_')}"] = value
        for name, value in (environ or {}).items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        response = self._webtest.do_request(request, expect_errors=True)
        return Answer(response.status_int, Headers(list(response.headers.items())), response.body)

    def sign_in(self, user_id: str = "user-1", **fields: Any) -> dict[str, Any]:
        """Begin a session as the app does; what it answers."""
        answer = self.ask("POST", "/api/auth/session", admin=True, json={"user_id": user_id, **fields})
        assert answer.status == 201, answer
        begun: dict[str, Any] = answer.json()
        return begun

    def me(self, token: str) -> Answer:
        """Who the token says is signed in."""
        return self.ask("GET", "/api/auth/me", token=token)

    def mint(self, token: str, **options: Any) -> dict[str, Any]:
        """Mint, and read the token's claims without looking at its signature."""
        answer = self.ask("POST", "/api/auth/jwt", token=token, **options)
        assert answer.status == 200, answer
        return unverified_claims(answer.json()["token"])

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every line of the log since this application was made, parsed."""
        return [jsonlib.loads(line) for line in self.log.getvalue()[self._logged_before :].splitlines()]

    @property
    def requests_logged(self) -> list[dict[str, Any]]:
        """Only the lines of requests."""
        return [line for line in self.lines if line["event"] == "request"]


def unverified_claims(token: str) -> dict[str, Any]:
    """The claims of a token, its signature not looked at."""
    claims: dict[str, Any] = pyjwt.decode(token, options={"verify_signature": False})
    return claims


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is the refusal of that code, in the shape of docs/errors.md to the letter; its `error`
    member.
    """
    if isinstance(answer.json()["error"], str):
        return _refused_as_oauth(answer, status, code)
    assert (answer.status, answer.json()["error"]["code"]) == (status, code), answer
    return well_shaped(answer)


#: What an endpoint of OAuth says for a code of the API.
OAUTH_WORDS: Final = {
    "INVALID_HOST": "invalid_request",
    "METHOD_NOT_ALLOWED": "invalid_request",
    "STORE_UNAVAILABLE": "temporarily_unavailable",
    "INTERNAL": "server_error",
}


def _refused_as_oauth(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The refusal of that code in the shape of RFC 6749 §5.2; an endpoint of OAuth has no other."""
    check_standing_headers(answer)
    value: dict[str, Any] = answer.json()
    assert (answer.status, value["error"]) == (status, OAUTH_WORDS[code]), answer
    assert set(value) == {"error", "error_description"}
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Allow" in answer.headers) is (status == 405)
    assert ("Retry-After" in answer.headers) is (status == 503)
    return value


def well_shaped(answer: Answer) -> dict[str, Any]:
    """Check the shape of an error (docs/errors.md): `{"error": {code, message, hint?, request_id}}` and the standing
    headers.
    """
    check_standing_headers(answer)
    assert answer.headers["Content-Type"] == "application/json"
    value = answer.json()
    assert list(value) == ["error"]
    error: dict[str, Any] = value["error"]
    assert set(error) - {"hint"} == {"code", "message", "request_id"}
    assert all(isinstance(member, str) and member for member in error.values()), error
    assert error["request_id"] == answer.headers["X-Request-Id"]
    if answer.status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    return error


def check_standing_headers(answer: Answer) -> None:
    """Check what every answer of the application carries."""
    assert answer.headers.all("X-Content-Type-Options") == ["nosniff"]
    assert len(answer.headers.all("X-Request-Id")) == 1


def set_cookie(answer: Answer) -> dict[str, str]:
    """The one cookie that an answer sets: its attributes in lower case, and its `name` and `value`."""
    (header,) = answer.headers.all("Set-Cookie")
    (morsel,) = SimpleCookie(header).values()
    first, *rest = header.split("; ")
    attributes = {part.partition("=")[0].lower(): part.partition("=")[2] for part in rest}
    assert first == f"{morsel.key}={morsel.value}"
    return attributes | {"name": morsel.key, "value": morsel.value}
