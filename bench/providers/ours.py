"""pylon-oidc by gunicorn or granian, on SQLite or PostgreSQL."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from apps.installing import python
from bench import clients, servers
from bench.clients import Place
from bench.providers.base import Provider, documents, for_itself
from bench.wire import browse
from bench.wrk import Target
from tests.storage.stores import migrate
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn
from tests.support.postgres import PostgresCluster

NAME = "pylon-oidc"
_LOGIN_URL = "http://localhost:9/login"
_CLAIMS = {"name": "Ada Byron", "email": "ada@example.com", "email_verified": True}
_POLICIES = """
[audience."hs256"]
alg = "HS256"

[audience."rs256"]
alg = "RS256"

[audience."https://rs256.example.com"]
alg = "RS256"
grants = ["client_credentials"]
clients = ["bench"]
scopes = ["api"]
claims = []

[audience."https://es256.example.com"]
alg = "ES256"
grants = ["client_credentials"]
clients = ["bench"]
scopes = ["api"]
claims = []
"""


def name(server: str, postgres: bool) -> str:
    """Its row in the tables."""
    return f"{NAME} {server} {'PG' if postgres else 'SQLite'}"


def fast_parser() -> Path | None:
    """Where gunicorn's parser in C is, as `pylon-oidc` with gunicorn's extra `fast` has it; `None` where it does not build."""
    try:
        interpreter = python("gunicorn-fast", source=Path(__file__).parents[1] / "peers/python")
    except AssertionError:
        return None
    return next(interpreter.parents[1].glob("lib/python*/site-packages"))


@contextlib.contextmanager
def ours(folder: Path, server: str, database: PostgresCluster | None = None) -> Iterator[Provider]:
    """Start it twice: the second start is the one that counts.

    Args:
        folder: For its database, where that is SQLite, and its policies.
        server: `gunicorn` or `granian`.
        database: Where it has a database of its own.
    """
    home = folder / f"ours-{server}-{'postgres' if database else 'sqlite'}"
    home.mkdir()
    given = _environment(home)
    parser = fast_parser() if server == "gunicorn" else None
    if parser is not None:
        given["PYTHONPATH"] = str(parser)
    if database is not None:
        given |= {"DATABASE_URL": database.create_database(), "PYLON_PREPARED_STATEMENTS": "1"}
        migrate(given["DATABASE_URL"])
    with Gunicorn(server=server, **given):
        pass
    start = time.monotonic()
    with Gunicorn(server=server, **given) as up:
        took_s = time.monotonic() - start
        place = Place(up.port, "/oidc/authorize", "/oidc/token")
        cookie, _ = browse(place, place.authorize_uri, clients.REDIRECT_URI, lambda uri: _sign_in(up, uri))
        version = importlib.metadata.version(server)
        what = f"{server} {version}{' with its parser in C' if parser else ''}, 2 workers, "
        what += "PostgreSQL with prepared statements" if database else "SQLite"
        yield Provider(
            name=name(server, database is not None),
            what=what,
            durable="all of it on disk",
            place=dataclasses.replace(place, cookie=cookie),
            pid=up.pid,
            cold_start_s=took_s,
            targets=_targets(up, home),
            userinfo="/oidc/userinfo",
            introspection="/oidc/introspect",
            database=database,
        )


def _environment(home: Path) -> dict[str, str]:
    policies = home / "policies.toml"
    policies.write_text(_POLICIES)
    client = {
        "client_id": clients.CLIENT_ID,
        "client_secret": clients.CLIENT_SECRET,
        "redirect_uris": [clients.REDIRECT_URI],
        "scope": f"{clients.SCOPE} api",
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
        "token_endpoint_auth_method": "client_secret_basic",
        "first_party": True,
    }
    return {
        "WEB_CONCURRENCY": "2",
        "PYLON_DATA_DIR": str(home / "data"),
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_OIDC_ISSUER": "http://localhost:{port}",
        "PYLON_OIDC_KEYS": "managed",
        "PYLON_OIDC_ALGS": "RS256,ES256",
        "PYLON_KEY_ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
        "PYLON_OIDC_CLIENTS": json.dumps([client]),
        "PYLON_LOGIN_URL": _LOGIN_URL,
        "PYLON_JWT_SECRET": SECRET,
        "PYLON_POLICIES": str(policies),
    }


def _sign_in(up: Gunicorn, uri: str) -> str:
    interaction = parse_qs(urlsplit(uri).query)["interaction"][0]
    answer = up.call(
        "POST",
        f"/api/oidc/interactions/{interaction}/login",
        headers={"Authorization": f"Bearer {ADMIN}"},
        body={"user_id": "ada", "claims": _CLAIMS},
    )
    return str(answer.json()["redirect_to"])


def _targets(up: Gunicorn, home: Path) -> dict[str, Target]:
    tokens = servers.sign_in(up, home / "tokens")

    def mint(audience: str) -> Target:
        url, body = servers.url(up, servers.MINT), json.dumps({"audience": audience})
        return Target(url, "POST", tokens, body, "application/json")

    def itself(audience: str) -> Target:
        return for_itself(up.port, "/oidc/token", resource=audience)

    return documents(up.port, servers.DISCOVERY, servers.JWKS) | {
        "mint HS256": mint("hs256"),
        "mint RS256": mint("rs256"),
        "client_credentials, RS256": itself("https://rs256.example.com"),
        "client_credentials, ES256": itself("https://es256.example.com"),
    }
