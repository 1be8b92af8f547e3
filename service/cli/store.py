"""`pylon-oidc store`: copies everything from one database to another."""

from __future__ import annotations

import dataclasses

import click

from service.cli.common import fail, fail_configuration, json_option, print_rows, wide_option
from service.settings import Fault
from service.startup import open_database
from service.storage.copy import CopyRefused, copy_store
from service.storage.interface import StoreRefused, StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.urls import InvalidDatabaseUrl, parse_database_url


@click.group()
def store() -> None:
    """Work on the whole database."""


@store.command("copy", short_help="Copy a database into an empty one, of either kind.")
@click.option("--from", "source", required=True, metavar="URL", help="The database to copy.")
@click.option("--to", "target", required=True, metavar="URL", help="An empty database.")
@wide_option
@json_option
def copy_command(*, source: str, target: str, wide: bool, as_json: bool) -> None:
    """Copy a database into an empty one, of either kind; stop the service first.

    This copies sessions, users, clients, consents, grants and keys. If it is interrupted, run it again to continue.
    The target can be used only after the counts and digests of both databases match.
    """
    stores = _opened("--from", source), _opened("--to", target)
    try:
        copied = copy_store(*stores, lambda table, count: click.echo(f"{table}: {count}", err=True))
    except CopyRefused as error:
        fail(str(error))
    except StoreRefused as error:
        fail_configuration([Fault("--from or --to", f"{error.reason}; {error.remedy}")])
    except (StoreUnavailable, OSError) as error:
        fail(f"A database cannot be reached ({error}). Run the same command again to continue.")
    finally:
        for each in stores:
            each.close()
    rows = [dataclasses.asdict(each) for each in copied]
    print_rows(rows, ["table", "records", "digest"], name="tables", as_json=as_json, wide=wide)


def _opened(option: str, url: str) -> SqlStore:
    try:
        return open_database(parse_database_url(url))
    except InvalidDatabaseUrl as error:
        fail_configuration([Fault(option, str(error))])
