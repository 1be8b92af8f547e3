"""`pylon-oidc migrate`: updates the schema."""

from __future__ import annotations

import time

import click

from service.cli.common import configured_store, say
from service.settings import read_settings
from service.startup import migrated


@click.command()
def migrate() -> None:
    """Update the database's schema.

    Any number of replicas may run it at once: one does the work, the others wait for it.
    """
    settings = read_settings().settings
    with configured_store() as store:
        for told in migrated(settings, store, now=int(time.time())):
            say(f"warning: {told}", err=True)
        click.echo("The schema is up to date.")
