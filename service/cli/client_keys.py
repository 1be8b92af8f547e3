"""`pylon-oidc clients keys`: fetches the keys of a client now."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click

from service.cli.common import as_minute, configured_store, fail, json_option, print_rows
from service.client_keys import KEPT_S, ClientKeys, KeysAtUrl
from service.clients import Clients
from service.keys.others import OthersKey
from service.logs import configure_logging
from service.outbound.fetcher import Outbound
from service.settings import read_settings

_CONCERNED = ("PYLON_OIDC_CLIENTS", "PYLON_OIDC_SCOPES")
_OUTBOUND = ("PYLON_OUTBOUND_ALLOW", "PYLON_OUTBOUND_CA_FILE", "PYLON_OUTBOUND_PROXY")


@click.command("keys", short_help="Ask the URL of a client's keys now.")
@click.argument("client_id")
@json_option
def client_keys(client_id: str, *, as_json: bool) -> None:
    """Fetch the keys of a client from its jwks_uri now, and list the keys in use. Exit code 1 if that fails.

    Run it on the machine of the service, with its settings: another machine may reach the URL when this one does not.
    """
    settings, now = read_settings().settings, int(time.time())
    with configured_store(*_CONCERNED, *_OUTBOUND) as store:
        client = Clients.of(settings, store).registered(client_id, now=now)
        if client is None:
            fail("There is no such client.")
        if client.jwks_uri is None:
            fail("This client has no jwks_uri.")
        configure_logging("error", settings.log_format)  # this command itself reports the failure
        seen, keys = ClientKeys(store, Outbound.of(settings)).ask(client, now=now)
    rows = [{"kid": key.kid, "algs": sorted(key.algs)} for key in keys]
    if as_json:
        click.echo(json.dumps(seen.shown() | {"keys": rows}, indent=2))
    else:
        _print(seen, keys)
    if seen.failure is not None:
        fail(f"{seen.jwks_uri} cannot be used: {seen.failure}.")


def _print(seen: KeysAtUrl, keys: Sequence[OthersKey]) -> None:
    """The keys as a table, and how long earlier keys stay in use."""
    if keys:
        rows = [{"kid": key.kid, "algs": " ".join(sorted(key.algs))} for key in keys]
        print_rows(rows, ["kid", "algs"], name="keys", as_json=False, headings={"algs": "verifies"})
    if seen.failure is not None and seen.fetched_at is not None:
        click.echo(
            f"These are of {as_minute(seen.fetched_at)}, and count until {as_minute(seen.fetched_at + KEPT_S)}."
        )
