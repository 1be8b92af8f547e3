"""`pylon-oidc sessions`: lists who is signed in, and locks users out."""

from __future__ import annotations

import time

import click

from service.cli.common import (
    as_date,
    as_minute,
    configured_store,
    json_option,
    print_rows,
    wide_option,
)
from service.deliveries import Deliveries
from service.sessions import LocalSessions
from service.settings import read_settings

_user_option = click.option("--user", required=True, metavar="USER_ID", help="The user's id.")


@click.group()
def sessions() -> None:
    """List and revoke the sessions of a user."""


@sessions.command("list")
@_user_option
@wide_option
@json_option
def list_sessions(user: str, *, wide: bool, as_json: bool) -> None:
    """List where a user is signed in."""
    when = as_date if wide else as_minute
    with configured_store() as store:
        found = LocalSessions(store, lifetime_s=0).list(user, now=int(time.time()))
    rows = [
        {
            "sid": session.sid,
            "token_prefix": session.token_prefix,
            "device": session.device,
            "created_at": session.created_at if as_json else when(session.created_at),
            "expires_at": session.expires_at if as_json else when(session.expires_at),
        }
        for session in found
    ]
    columns = ["sid", "token_prefix", "device", "created_at", "expires_at"]
    print_rows(rows, columns, name="sessions", as_json=as_json, wide=wide)


@sessions.command("revoke")
@_user_option
def revoke_sessions(user: str) -> None:
    """Sign a user out everywhere."""
    reading = read_settings()
    is_readable = all(fault.setting != "PYLON_OIDC_CLIENTS" for fault in reading.faults)
    with configured_store() as store:
        settings = reading.settings
        told = Deliveries(store, fixed=settings.clients if is_readable else None, issuer=settings.issuer)
        count = LocalSessions(store, lifetime_s=0, deliveries=told).lock_out(user, now=int(time.time()))
    click.echo(f"Revoked {count} session{'' if count == 1 else 's'}.")
