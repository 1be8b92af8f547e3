"""`pylon-oidc migrate`: the schema, brought up to date."""

from __future__ import annotations

import click

from service.cli.common import configured_store


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Any number of replicas may run it at once: one does the work, the others wait for it.
    """
    with configured_store() as store:
        store.migrate()
        click.echo("The schema is up to date.")
