"""Runs the migrations on a database that has tables already, or on PostgreSQL. Only this loads SQLAlchemy and Alembic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.storage.database import Database
from service.storage.interface import StoreRefused
from service.storage.kept import GaveWay, Run


@contextlib.contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """A connection within a transaction, which is committed at the end, and rolled back by any exception.

    Raises:
        GaveWay: if it lost against another transaction; it may run again.
        StoreUnavailable: if the database is unavailable.
    """
    try:
        with database.engine().begin() as connection:
            yield connection
    except DBAPIError as error:
        if error.orig is not None and database.gave_way(error.orig):
            raise GaveWay from error.orig
        if error.orig is not None and (outage := database.outage(error.orig)):
            raise outage from error.orig
        raise


def run_on(connection: Connection) -> Run:
    """Runs statements of ours on the connection."""

    def run(sql: str, values: Mapping[str, Any]) -> list[Any]:
        done = connection.exec_driver_sql(sql, dict(values))
        return list(done) if done.returns_rows else []

    return run


def upgrade(connection: Connection) -> None:
    """Run the migrations that the database does not have yet.

    Raises:
        StoreRefused: if its revision is not one of ours.
    """
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise StoreRefused(
            "its table alembic_version is another program's", "give the service a database of its own"
        ) from None
