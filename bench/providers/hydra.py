"""Ory Hydra 2 on PostgreSQL: as it comes, and tuned."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from apps.installing import Missing, go_program, go_version
from bench import clients
from bench.clients import Place
from bench.providers.base import Absent, Provider, call, documents, for_itself, port, server, set_up
from bench.wire import browse
from tests.support.postgres import PostgresCluster

NAME = "Ory Hydra"
_SOURCE = Path(__file__).parents[1] / "peers/go/hydra"
_TAGS = (
    "-tags",
    "sqlite,sqlite_omit_load_extension,hsm_disabled",
    "-trimpath",
    "-p",
    "1",
    "-ldflags",
    "-s -w",
)
_JWT_CLIENT = "bench-jwt"
#: The least work that its settings allow to check a client's secret, which is random here; and no line a request.
_TUNED = {
    "OAUTH2_HASHERS_ALGORITHM": "pbkdf2",
    "OAUTH2_HASHERS_PBKDF2_ITERATIONS": "1",
    "LOG_LEVEL": "error",
}
_CLAIMS = {"name": "Ada Byron", "email": "ada@example.com", "email_verified": True}


def name(*, tuned: bool) -> str:
    """Its row in the tables."""
    return f"{NAME}{' tuned' if tuned else ''} PG"


def install() -> Path:
    """The program, built where it is not there yet: minutes.

    Raises:
        Absent: When it cannot be built.
    """
    try:
        return go_program("hydra", source=_SOURCE, build=_TAGS, nice=15)
    except (Missing, AssertionError) as error:
        raise Absent(str(error)) from None


@contextlib.contextmanager
def hydra(folder: Path, database: PostgresCluster, *, tuned: bool) -> Iterator[Provider]:
    """Migrate its database, start it, and register its clients.

    Args:
        folder: For its log.
        database: Where it has a database of its own.
        tuned: With `_TUNED`.

    Raises:
        Absent: When it cannot be built or does not start.
    """
    program = install()
    with port() as at, port() as admin:
        environ = {
            "DSN": f"{database.create_database()}?sslmode=disable&max_conns=20&max_idle_conns=20",
            "SECRETS_SYSTEM": secrets.token_hex(16),
            "URLS_SELF_ISSUER": f"http://localhost:{at}",
            "URLS_LOGIN": "http://localhost:9/login",
            "URLS_CONSENT": "http://localhost:9/consent",
            "SERVE_PUBLIC_HOST": "127.0.0.1",
            "SERVE_PUBLIC_PORT": str(at),
            "SERVE_ADMIN_HOST": "127.0.0.1",
            "SERVE_ADMIN_PORT": str(admin),
            "SQA_OPT_OUT": "true",
        } | (_TUNED if tuned else {})
        set_up(
            [program, "migrate", "sql", "-e", "--yes"], folder, environ, "its database could not be migrated"
        )
        discovery = "/.well-known/openid-configuration"
        with server([program, "serve", "all", "--dev"], at, discovery, folder, environ=environ) as up:
            call(at, "GET", "/.well-known/jwks.json")  # it makes its keys when they are first asked for
            _register(admin)
            place = Place(at, "/oauth2/auth", "/oauth2/token")

            def code(of: Place = place) -> tuple[str, str]:
                return browse(of, of.authorize_uri, clients.REDIRECT_URI, lambda uri: _accept(admin, uri))

            signed_in = dataclasses.replace(place, cookie=code()[0])
            own = base64.b64encode(f"{_JWT_CLIENT}:{clients.CLIENT_SECRET}".encode()).decode()
            as_client = dataclasses.replace(
                for_itself(at, "/oauth2/token", scope="api"), authorization=f"Basic {own}"
            )
            yield Provider(
                name=name(tuned=tuned),
                what=go_version("hydra", "github.com/ory/hydra/v2", source=_SOURCE)
                + (", hasher with 1 iteration, log level error" if tuned else ", as it comes"),
                durable="all of it on disk",
                place=place,
                pid=up.process.pid,
                cold_start_s=up.start_s,
                targets=documents(at, discovery, "/.well-known/jwks.json")
                | {"client_credentials, RS256": as_client},
                userinfo="/userinfo",
                introspection=f"http://localhost:{admin}/admin/oauth2/introspect",
                code=lambda: parse_qs(urlsplit(code(signed_in)[1]).query)["code"][0],
                database=database,
            )


def _register(admin: int) -> None:
    """A client for users, and one whose access tokens are JWTs."""
    both = {"client_secret": clients.CLIENT_SECRET, "token_endpoint_auth_method": "client_secret_basic"}
    for_users = {
        "client_id": clients.CLIENT_ID,
        "redirect_uris": [clients.REDIRECT_URI],
        "scope": clients.SCOPE,
        "grant_types": ["authorization_code", "refresh_token"],
        "skip_consent": True,
    }
    for_it = {
        "client_id": _JWT_CLIENT,
        "scope": "api",
        "grant_types": ["client_credentials"],
        "access_token_strategy": "jwt",
    }
    for one in (for_users, for_it):
        reply = call(admin, "POST", "/admin/clients", both | one)
        if reply.status != 201:
            raise Absent(f"no client could be registered: {reply.body[:500]!r}")


def _accept(admin: int, uri: str) -> str:
    """What the app's sign-in and consent pages do."""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(uri).query).items()}
    if "login_challenge" in asked:
        what, body = "login", {"subject": "ada", "remember": True, "remember_for": 86_400}
    elif "consent_challenge" in asked:
        what = "consent"
        body = {"grant_scope": clients.SCOPE.split(), "session": {"id_token": _CLAIMS}}
    else:
        raise Absent(f"sign-in went to {uri}")
    challenge = urlencode({f"{what}_challenge": asked[f"{what}_challenge"]})
    reply = call(admin, "PUT", f"/admin/oauth2/auth/requests/{what}/accept?{challenge}", body)
    return str(reply.json()["redirect_to"])
