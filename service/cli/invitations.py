"""`pylon-oidc clients invite`, `invitations`, `uninvite`: let a program register itself.

Spec: RFC 7591 §3 (initial access token)
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

from service.cli.common import as_minute, configured_store, fail, json_option, print_rows, say, wide_option
from service.handles import hash_handle, new_handle, new_id
from service.protocol.clients import InvalidClientMetadata
from service.protocol.metadata import REGISTRATION
from service.protocol.strangers import MEMBERS_OF_STRANGERS, parse_stranger
from service.records.clients import ClientSecret
from service.records.invitations import Invitation, of_record
from service.settings import Settings, platform_port, read_settings
from service.storage.interface import Fitting, Kind

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)
#: What a client needs, if the invitation leaves it open.
_LEFT_OUT: Final = {"redirect_uris": ["https://client.invalid/callback"]}


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A time from now (30m, 12h, 7d), or a date and time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it. Returns Unix s."""
        now = int(time.time())
        if match := _DURATION.fullmatch(value):
            return now + int(match[1]) * _UNITS[match[2]]
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time. Write 30m, 12h, 7d, or 2030-01-31T12:00Z.", param, ctx)
        at = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        if at <= now:
            self.fail(f"{value!r} is over. Write a later time.", param, ctx)
        return at


@click.command("invite", short_help="Let a program register itself; prints its token.")
@click.option(
    "--uses", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="How many clients."
)
@click.option(
    "--expires",
    "expires_at",
    type=_Moment(),
    default="7d",
    show_default=True,
    help="After 30m, 12h, 7d, or a date.",
)
@click.option(
    "--metadata",
    "file",
    type=click.File("rb"),
    help="A file with members that its clients cannot exceed, a JSON object.",
)
@json_option
def invite(*, uses: int, expires_at: int, file: BinaryIO | None, as_json: bool) -> None:
    """Create an invitation, with which a program registers itself. Its token is printed only now."""
    settings = read_settings().settings
    bounds = {} if file is None else _bounds(file, settings)
    if settings.registration == "off":
        say("warning: PYLON_OIDC_REGISTRATION is off: write token, or nobody can use it", err=True)
    token, now = new_handle(), int(time.time())
    invitation = Invitation(new_id(), hash_handle(token), uses, expires_at, now, bounds)
    with configured_store("PYLON_OIDC_SCOPES", "PYLON_POLICIES", "PYLON_OIDC_REGISTRATION_SCOPES") as store:
        store.put(invitation.to_record(), now=now)
    at = f"{settings.issuer or f'http://localhost:{platform_port() or 4321}'}{REGISTRATION}"
    if as_json:
        shown = {"id": invitation.id, "initial_access_token": token, "registration_endpoint": at}
        click.echo(json.dumps(shown | {"uses": uses, "expires_at": expires_at}, indent=2))
        return
    click.echo(f"id                     {invitation.id}")
    click.echo(f"initial_access_token   {token}")
    click.echo(f"registration_endpoint  {at}")
    click.echo(f"expires                {as_minute(expires_at)}")


def _bounds(file: BinaryIO, settings: Settings) -> dict[str, Any]:
    """The members of an invitation, checked as those of a client."""
    try:
        bounds = json.loads(file.read().decode())
    except (ValueError, RecursionError):
        bounds = None
    if not isinstance(bounds, dict):
        raise click.UsageError("--metadata: the file is not a JSON object.")
    for name in bounds:
        if name not in MEMBERS_OF_STRANGERS:
            raise click.UsageError(f"--metadata: {name}: a client that registers itself does not have it.")
    method = bounds.get("token_endpoint_auth_method", "client_secret_basic")
    secrets = (ClientSecret(""),) if str(method).startswith("client_secret") else ()
    try:
        parse_stranger(
            _LEFT_OUT | bounds,
            client_id="r_",
            source="registration",
            scopes=settings.scopes,
            devices=settings.stranger_devices,
            secrets=secrets,
        )
    except InvalidClientMetadata as error:
        raise click.UsageError(f"--metadata: {error}") from None
    return bounds


@click.command("invitations", short_help="List the invitations.")
@wide_option
@json_option
def invitations(*, wide: bool, as_json: bool) -> None:
    """List the invitations that have not expired, without their tokens."""
    with configured_store() as store:
        known = list(map(of_record, store.list(Kind.INVITATION, now=int(time.time()))))
    rows: list[dict[str, Any]] = [
        {
            "id": each.id,
            "uses_left": each.uses_left,
            "created_at": each.created_at if as_json else as_minute(each.created_at),
            "expires_at": each.expires_at if as_json else as_minute(each.expires_at),
            "metadata": dict(each.metadata) if as_json else ", ".join(each.metadata) or None,
        }
        for each in known
    ]
    columns = ["id", "uses_left", "expires_at", "metadata"]
    print_rows(rows, columns, name="invitations", as_json=as_json, wide=wide, whole=["id"])


@click.command("uninvite", short_help="Withdraw an invitation.")
@click.argument("invitation_id")
def uninvite(invitation_id: str) -> None:
    """Withdraw an invitation; clients that it has registered stay."""
    with configured_store() as store:
        if not store.delete(Fitting(Kind.INVITATION, subject=invitation_id), now=int(time.time())):
            fail("There is no such invitation.")
        click.echo("Withdrawn.")
