"""`pylon-oidc clients`: who may sign users in through the app."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import click

from service.cli.common import configured_store, fail, json_option, print_rows
from service.clients import ClientExists, ClientReadOnly, Clients
from service.protocol.clients import InvalidClientMetadata, MintedAudienceMissing
from service.settings import read_settings
from service.settings.cross_checks import no_minted_audience


@click.group()
def clients() -> None:
    """Register clients, and look after them."""


@contextlib.contextmanager
def _directory() -> Iterator[Clients]:
    settings = read_settings().settings
    # Without an audience for minted tokens no client is added; those that are there must go, or be looked at.
    with configured_store(
        "PYLON_OIDC_CLIENTS", "PYLON_OIDC_SCOPES", "PYLON_JWT_AUDIENCE", but=[no_minted_audience(settings)]
    ) as store:
        try:
            yield Clients(
                settings.clients,
                store,
                minted_audience=settings.jwt_audience,
                mint_alg=settings.jwt_alg,
                scopes=settings.scopes,
                id_token_algs=settings.id_token_algs,
            )
        except MintedAudienceMissing as error:
            fail(str(error))
        except InvalidClientMetadata as error:
            raise click.UsageError(str(error)) from None
        except ClientExists:
            fail("There is a client of this id already.")
        except ClientReadOnly:
            fail("This client stands in PYLON_OIDC_CLIENTS, and is changed there.")


@clients.command("add")
@click.option(
    "--redirect-uri", "redirect_uris", multiple=True, required=True, help="Where codes go; may be repeated."
)
@click.option("--name", "client_name", help="What users know it by.")
@click.option("--client-id", help="An id of your own; made when left out.")
@click.option("--public", is_flag=True, help="It cannot keep a secret: an app on a device, or in a browser.")
@click.option("--first-party", is_flag=True, help="It belongs to the app: users are not asked to consent.")
@click.option("--scope", help="Which scopes it may have, by spaces; all when left out.")
@click.option(
    "--post-logout-redirect-uri", "post_logout_redirect_uris", multiple=True, help="Where sign-out goes."
)
@click.option("--metadata", help="Further members, as a JSON object.")
@json_option
def add_client(*, metadata: str | None, public: bool, as_json: bool, **members: Any) -> None:
    """Register a client; its secret is printed now and never again."""
    given = {
        name: list(value) if isinstance(value, tuple) else value for name, value in members.items() if value
    }
    if public:
        given["token_endpoint_auth_method"] = "none"
    given |= _json_object(metadata)
    with _directory() as directory:
        client, secret = directory.add(given, now=int(time.time()))
        shown = client.public_metadata() | ({} if secret is None else {"client_secret": secret})
        if as_json:
            click.echo(json.dumps(shown, indent=2))
            return
        click.echo(f"client_id      {client.client_id}")
        if secret is not None:
            click.echo(f"client_secret  {secret}")


def _json_object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise click.UsageError("--metadata is no JSON object.")
    return value


@clients.command("list")
@json_option
def list_clients(*, as_json: bool) -> None:
    """List the clients of the environment and of the database."""
    with _directory() as directory:
        rows = [client.public_metadata() for client in directory.list(now=int(time.time()))]
    columns = ["client_id", "client_name", "source", "token_endpoint_auth_method", "first_party"]
    filled = rows if as_json else [{column: row.get(column) for column in columns} for row in rows]
    print_rows(filled, columns, name="clients", as_json=as_json)


@clients.command("show")
@click.argument("client_id")
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: it is JSON always.")
def show_client(client_id: str) -> None:
    """Print a client's metadata, never its secret."""
    with _directory() as directory:
        client = directory.registered(client_id, now=int(time.time()))
        if client is None:
            fail("There is no such client.")
        click.echo(json.dumps(client.public_metadata(), indent=2))


@clients.command("rotate-secret")
@click.argument("client_id")
@json_option
def rotate_secret(client_id: str, *, as_json: bool) -> None:
    """Give a client a new secret; the old one is good for an hour."""
    with _directory() as directory:
        secret = directory.rotate_secret(client_id, now=int(time.time()))
        if secret is None:
            fail("There is no such client with a secret.")
        if as_json:
            click.echo(json.dumps({"client_id": client_id, "client_secret": secret}, indent=2))
            return
        click.echo(f"client_secret  {secret}")


@clients.command("remove")
@click.argument("client_id")
def remove_client(client_id: str) -> None:
    """Remove a client; what it holds is worth nothing from now on."""
    with _directory() as directory:
        if not directory.remove(client_id, now=int(time.time())):
            fail("There is no such client.")
        click.echo("Removed.")
