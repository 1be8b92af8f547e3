"""`pylon-oidc sweep`: removes expired records."""

from __future__ import annotations

import time

import click

from service.cli.common import configured_store

_BATCH = 1000


@click.command()
def sweep() -> None:
    """Remove all expired records. A running service does this by itself."""
    removed = 0
    with configured_store() as store:
        while batch := store.delete_expired(now=int(time.time()), limit=_BATCH):
            removed += batch
        store.give_back()
    click.echo(f"Removed {removed} ended records.")
