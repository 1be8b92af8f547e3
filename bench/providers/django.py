"""Django OAuth Toolkit in gunicorn, on PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from apps.installing import python, run
from bench import clients
from bench.clients import Place
from bench.providers.base import Absent, Provider, call, documents, port, server, set_up
from bench.wire import browse
from tests.support.gunicorn import rsa_pem
from tests.support.postgres import PostgresCluster

NAME = "Django OAuth Toolkit PG"
_PEERS = Path(__file__).parents[1] / "peers"
_PACKAGES = "django-oauth-toolkit"


def install() -> Path:
    """The interpreter that has it, installed where it is not there yet.

    Raises:
        Absent: When it cannot be installed.
    """
    try:
        return python(_PACKAGES, source=_PEERS / "python")
    except AssertionError as error:
        raise Absent(str(error)) from None


@contextlib.contextmanager
def django(folder: Path, database: PostgresCluster) -> Iterator[Provider]:
    """Make its tables and start it.

    Args:
        folder: For its log.
        database: Where it has a database of its own.

    Raises:
        Absent: When it is not available or does not start.
    """
    program = install()
    where = urlsplit(database.create_database())
    given = {
        "secret_key": secrets.token_hex(32),
        "key": rsa_pem(),
        "client_id": clients.CLIENT_ID,
        "client_secret": clients.CLIENT_SECRET,
        "redirect_uri": clients.REDIRECT_URI,
        "database": {
            "NAME": where.path.removeprefix("/"),
            "USER": where.username,
            "PASSWORD": where.password,
            "HOST": where.hostname,
            "PORT": where.port,
        },
    }
    environ = {"BENCH_DJANGO": json.dumps(given), "PYTHONPATH": str(_PEERS)}
    set_up([program, "-m", "django_site.set_up"], folder, environ, "it could not be set up")
    discovery = "/o/.well-known/openid-configuration"
    with port() as at:
        command = [
            program, "-m", "gunicorn", "--bind", f"127.0.0.1:{at}", "--workers", "2", "--threads", "4",
            "--worker-class", "gthread", "--preload", "--log-level", "error", "django_site.wsgi:application",
        ]  # fmt: skip
        with server(command, at, discovery, folder, environ=environ) as up:
            place = Place(at, "/o/authorize/", "/o/token/")
            signed_in = dataclasses.replace(place, cookie=call(at, "GET", "/sign-in").cookies)
            browse(signed_in, place.authorize_uri, clients.REDIRECT_URI, str)
            version = run(program, "-c", f"import importlib.metadata as m; print(m.version({_PACKAGES!r}))")
            yield Provider(
                name=NAME,
                what=f"{version.strip()}, gunicorn with 2 workers of 4 threads, the client's secret not hashed",
                durable="all of it on disk",
                place=signed_in,
                pid=up.process.pid,
                cold_start_s=up.start_s,
                targets=documents(at, discovery, "/o/.well-known/jwks.json"),
                userinfo="/o/userinfo/",
                introspection="/o/introspect/",
                database=database,
            )
