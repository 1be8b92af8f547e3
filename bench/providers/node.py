"""npm `oidc-provider`: its store in memory, or two workers on SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import clients
from bench.clients import Place
from bench.providers.base import Absent, Provider, documents, for_itself, port, server
from bench.wire import browse
from tests.support.postgres import PostgresCluster

NAME = "oidc-provider"
_PEERS = Path(__file__).parents[1] / "peers"
_DISCOVERY, _TOKEN = "/.well-known/openid-configuration", "/token"
_SHOWN = {"memory": "memory", "sqlite": "SQLite", "postgres": "PG"}


def name(store: str) -> str:
    """Its row in the tables."""
    return f"{NAME} {_SHOWN[store]}"


@contextlib.contextmanager
def node(folder: Path, store: str, database: PostgresCluster | None = None) -> Iterator[Provider]:
    """Start it.

    Args:
        folder: For its database, where that is SQLite.
        store: `memory`, `sqlite` or `postgres`.
        database: Where it has a database of its own.

    Raises:
        Absent: When it cannot be installed or does not start.
    """
    program = install()
    where = database.create_database() if database else str(folder / "oidc-provider.db")
    with port() as at:
        environ = {
            "NODE_ENV": "production",
            "PEER_SECRET": clients.CLIENT_SECRET,
            "PEER_REDIRECT_URI": clients.REDIRECT_URI,
            "PEER_SCOPE": clients.SCOPE,
            "PEER_STORE": store,
            "PEER_DATABASE": where,
            "PEER_WORKERS": "0" if store == "memory" else "2",
            "PEER_PORT": str(at),
        }
        with server([program, "provider.mjs"], at, _DISCOVERY, folder, environ=environ, cwd=_PEERS) as up:
            place = Place(at, "/auth", _TOKEN)
            cookie, _ = browse(place, place.authorize_uri, clients.REDIRECT_URI, str)
            yield Provider(
                name=name(store),
                what=f"{_version()} on Node {_said(program)}, "
                + (
                    "one process"
                    if store == "memory"
                    else f"a cluster of 2 on {_SHOWN[store]}, an adapter of one table"
                ),
                durable="nothing: lost with the process" if store == "memory" else "all of it on disk",
                place=dataclasses.replace(place, cookie=cookie),
                pid=up.process.pid,
                cold_start_s=up.start_s,
                targets=documents(at, _DISCOVERY, "/jwks")
                | {
                    f"client_credentials, {alg}": for_itself(
                        at, _TOKEN, resource=f"https://{alg.lower()}.example.com", scope="api"
                    )
                    for alg in ("RS256", "ES256")
                },
                userinfo="/me",
                introspection="/token/introspection",
                database=database,
            )


def install() -> str:
    """The Node to run it: of the npm packages, which are installed when they are not there, or else of the machine.

    Raises:
        Absent: When that fails.
    """
    if shutil.which("npm") is None:
        raise Absent("there is no npm to install it")
    try:
        subprocess.run([_PEERS / "install"], check=True, timeout=150, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        raise Absent("npm could not install it") from None
    own = next(_PEERS.glob("node_modules/node-linux-*/bin/node"), None)
    program = str(own) if own else shutil.which("node")
    if program is None:
        raise Absent("there is no Node to run it")
    return program


def _version() -> str:
    package = json.loads((_PEERS / "node_modules/oidc-provider/package.json").read_text())
    return str(package["version"])


def _said(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("v")
