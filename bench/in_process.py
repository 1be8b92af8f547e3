"""Each flow as requests to the WSGI callable in this process, without a server: made ready first, then answered."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from bench import clients, servers

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Request = dict[str, Any]
_HOST = urlsplit(servers.ISSUER).netloc
_CLAIMS = {"name": "Ada Byron", "email": "ada@example.com", "email_verified": True}
# RFC 7636, appendix B.
_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: str
    headers: Mapping[str, str]
    body: bytes


def environ(
    method: str, target: str, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
) -> Request:
    """What gunicorn hands to the application."""
    path, _, query = target.partition("?")
    body = urlencode(form or {}).encode()
    given = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
    request = {
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": None,
        "wsgi.input_terminated": True,
        "wsgi.input": body,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "REQUEST_METHOD": method,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_HOST": _HOST,
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "4321",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        **given,
    }
    return request | ({"CONTENT_TYPE": "application/x-www-form-urlencoded"} if body else {})


def ask(app: Wsgi, request: Request) -> Answer:
    """Answer one request in this process."""
    told: list[Any] = []
    environ_ = request.copy()
    environ_["wsgi.input"] = io.BytesIO(request["wsgi.input"])
    body = b"".join(app(environ_, lambda status, headers, *_: told.extend((status, headers))))
    return Answer(told[0], dict(told[1]), body)


class Service:
    """The service as `service.wsgi` makes it, with one client and one user who is signed in.

    Args:
        alg: of minted tokens.
        folder: for its database.
        registered: whether the client is registered in the database; else the environment has it.
        database_url: of a database with its schema, instead of one in the folder.
        users: how many are signed in, each with a session; requests are of one after the other.
    """

    def __init__(
        self,
        alg: str,
        folder: Path,
        *,
        registered: bool = False,
        database_url: str | None = None,
        users: int = 1,
    ) -> None:
        from service.app import create_app
        from service.clients import Clients
        from service.logs import configure_logging
        from service.records.sessions import SignIn
        from service.sessions import LocalSessions
        from service.startup import prepare

        client = {
            "client_id": clients.CLIENT_ID,
            "client_secret": clients.CLIENT_SECRET,
            "redirect_uris": [clients.REDIRECT_URI],
            "scope": clients.SCOPE,
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "client_secret_basic",
            "first_party": True,
        }
        given = servers.settings(alg, folder) | {
            "PYLON_LOGIN_URL": "https://id.example.com/sign-in",
            "PYLON_JWT_AUDIENCE": "api",
        }
        if database_url is not None:
            given["DATABASE_URL"] = database_url
        if alg != "HS256" and not registered:
            given["PYLON_OIDC_CLIENTS"] = json.dumps([client])
        prepared = prepare(given, clock=time.time)
        configure_logging("info", "json")
        sessions = LocalSessions(prepared.store, lifetime_s=prepared.settings.session_lifetime_s)
        self._tokens_of = [
            sessions.create(
                SignIn(user, claims=_CLAIMS, given=frozenset({"claims"})), now=int(time.time())
            ).token
            for user in ("ada", *(f"ada-{number}" for number in range(1, users)))
        ]
        if registered:
            directory = Clients((), prepared.store, minted_audience=prepared.settings.jwt_audience)
            directory.add(client, now=int(time.time()))
        self.store = prepared.store
        self.app: Wsgi = create_app(prepared.settings, prepared.store, prepared.keyring)
        self._cookie_name = prepared.settings.cookie_name

    def answered(self, request: Request, status: str) -> Answer:
        """What the application answers, which has that status."""
        answer = ask(self.app, request)
        assert answer.status.startswith(status), answer
        return answer

    def mints(self, count: int) -> list[Request]:
        """A mint, so many times."""
        return [
            environ("POST", servers.MINT, {"Authorization": f"Bearer {token}"})
            for token in self._in_turn(count)
        ]

    def _in_turn(self, count: int) -> list[str]:
        """Tokens of sessions."""
        return list(itertools.islice(itertools.cycle(self._tokens_of), count))

    def authorizations(self, count: int) -> list[Request]:
        """A request for a code by a browser that is signed in, so many times."""
        place = clients.Place(443, "/oidc/authorize", "/oidc/token")
        return [
            environ("GET", place.authorize_uri, {"Cookie": f"{self._cookie_name}={token}"})
            for token in self._in_turn(count)
        ]

    def exchanges(self, count: int) -> list[Request]:
        """So many codes, each to be exchanged."""
        return [self._exchange(self._code(request)) for request in self.authorizations(count)]

    def refreshes(self, count: int) -> list[Request]:
        """So many refresh tokens, each to be refreshed."""
        tokens = [self._tokens(request)["refresh_token"] for request in self.exchanges(count)]
        return [self._token({"grant_type": "refresh_token", "refresh_token": token}) for token in tokens]

    def userinfos(self, count: int) -> list[Request]:
        """One access token a user, so many times in total."""
        tokens = self._access_tokens(count)
        return [environ("GET", "/oidc/userinfo", {"Authorization": f"Bearer {token}"}) for token in tokens]

    def introspections(self, count: int) -> list[Request]:
        """One access token a user, whose client asks about it, so many times in total."""
        headers = {"Authorization": clients.BASIC}
        tokens = self._access_tokens(count)
        return [environ("POST", "/oidc/introspect", headers, {"token": token}) for token in tokens]

    def _access_tokens(self, count: int) -> list[str]:
        tokens = [
            str(self._tokens(request)["access_token"])
            for request in self.exchanges(min(count, len(self._tokens_of)))
        ]
        return list(itertools.islice(itertools.cycle(tokens), count))

    def _code(self, request: Request) -> str:
        answer = self.answered(request, "303")
        return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]

    def _exchange(self, code: str) -> Request:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": clients.REDIRECT_URI}
        return self._token(form | {"code_verifier": _VERIFIER})

    def _token(self, form: Mapping[str, str]) -> Request:
        return environ("POST", "/oidc/token", {"Authorization": clients.BASIC}, form)

    def _tokens(self, request: Request) -> dict[str, Any]:
        tokens: dict[str, Any] = json.loads(self.answered(request, "200").body)
        return tokens


#: What makes a flow's requests, by its name.
FLOWS: Mapping[str, Callable[[Service, int], list[Request]]] = {
    "mint": Service.mints,
    "authorize": Service.authorizations,
    "code exchange": Service.exchanges,
    "refresh": Service.refreshes,
    "userinfo": Service.userinfos,
    "introspection": Service.introspections,
}
