"""Dex on PostgreSQL, in the newest version that can be built from the Go module proxy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from apps.installing import Missing, go_folder, go_program, go_version
from bench import clients
from bench.clients import Place
from bench.providers.base import Absent, Provider, documents, port, server
from bench.wire import browse
from tests.support.postgres import PostgresCluster

NAME = "Dex PG"
_PROGRAM, _MODULE = "dex-postgres", "github.com/dexidp/dex"
_SOURCE = Path(__file__).parents[1] / "peers/go" / _PROGRAM


def install() -> tuple[Path, Path]:
    """The program and its pages, built where it is not there yet.

    Raises:
        Absent: When it cannot be built.
    """
    try:
        program = go_program(_PROGRAM, source=_SOURCE, nice=15)
        return program, go_folder(program, _MODULE) / "web"
    except (Missing, AssertionError) as error:
        raise Absent(str(error)) from None


@contextlib.contextmanager
def dex(folder: Path, database: PostgresCluster) -> Iterator[Provider]:
    """Start it, with a connector that signs everybody in.

    Args:
        folder: For its configuration and its log.
        database: Where it has a database of its own.

    Raises:
        Absent: When it cannot be built or does not start.
    """
    program, web = install()
    where = urlsplit(database.create_database())
    with port() as at:
        config = folder / "dex.json"
        client = {
            "id": clients.CLIENT_ID,
            "secret": clients.CLIENT_SECRET,
            "name": "bench",
            "redirectURIs": [clients.REDIRECT_URI],
        }
        config.write_text(
            json.dumps(
                {
                    "issuer": f"http://localhost:{at}",
                    "database": {
                        "Database": where.path.removeprefix("/"),
                        "User": where.username,
                        "Password": where.password,
                        "Host": f"{where.hostname}:{where.port}",
                        "ssl": {"Mode": "disable"},
                    },
                    "clients": [client],
                }
            )
        )
        discovery = "/.well-known/openid-configuration"
        with server([program, config, f"127.0.0.1:{at}", web], at, discovery, folder) as up:
            place = Place(at, "/auth", "/token")

            def code() -> str:
                _, uri = browse(place, place.authorize_uri, clients.REDIRECT_URI, str)
                return parse_qs(urlsplit(uri).query)["code"][0]

            code()
            yield Provider(
                name=NAME,
                what=f"{go_version(_PROGRAM, _MODULE, source=_SOURCE)}, without a limit of connections",
                durable="all of it on disk",
                place=place,
                pid=up.process.pid,
                cold_start_s=up.start_s,
                targets=documents(at, discovery, "/keys"),
                code=code,
                database=database,
            )
