"""`pylon-oidc policy`: shows which claims tokens have and who may get one, before anyone requests it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from service.cli.common import (
    FAILED,
    configured_store,
    fail_configuration,
    json_option,
    print_rows,
    say,
    wide_option,
)
from service.cli.policy_cases import clients_of, decided_for, result, session_of
from service.clients import Clients
from service.policies.cases import Case
from service.policies.deciding import Asked, Refused
from service.policies.explaining import explained, rows_of, why
from service.policies.schema import as_text
from service.policies.values import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    CLIENT_WAYS,
    MINT,
    TOKEN_EXCHANGE,
    WAYS,
    Policy,
)
from service.protocol.metadata import build_resource_metadata, resource_metadata_address
from service.records.clients import Client
from service.records.sessions import Session, SignIn, new_session
from service.sessions import LocalSessions
from service.settings import Fault, Reading, Settings, platform_port, read_settings
from service.settings.policies import SETTING
from service.storage.interface import Store

#: Settings that a policy file is read together with: a fault of one of them is a fault of the policies.
_CONCERNED: Final = (
    SETTING,
    "PYLON_JWT_ALG",
    "PYLON_JWT_AUDIENCE",
    "PYLON_JWT_LIFETIME_SECS",
    "PYLON_JWT_SECRET",
)

#: The ways by which a client gets a token of a user.
_IN_A_USERS_NAME: Final = (AUTHORIZATION_CODE, TOKEN_EXCHANGE)

_file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Use this file instead of the one that {SETTING} names.",
)


@click.group()
def policy() -> None:
    """Check, explain and test the policies of audiences."""


@policy.command("check", short_help="Report every fault of the policy file.")
@_file_option
@json_option
def check_file(file: Path | None, *, as_json: bool) -> None:
    """Report every fault of the policy file, with file, line and table."""
    reading = _reading(file)
    faults = _faults(reading)
    found = reading.settings.policies
    odd = [warning for warning in reading.warnings if warning.startswith(f"{SETTING}: ")]
    if as_json:
        told = {
            "file": None if found is None else str(file or found.file) or None,
            "audiences": [] if found is None else list(found.tables),
            "faults": [{"name": fault.name, "line": fault.line, "text": fault.text} for fault in faults],
            "warnings": odd,
        }
        click.echo(json.dumps(told, indent=2))
        raise SystemExit(2 if faults else 0)
    if faults:
        fail_configuration(faults)
    for warning in odd:
        say(f"warning: {warning}")
    count = 0 if found is None else len(found.tables)
    click.echo(f"The policies are sound: {count} audience{'' if count == 1 else 's'}.")


@policy.command("list")
@_file_option
@wide_option
@json_option
def list_policies(file: Path | None, *, wide: bool, as_json: bool) -> None:
    """List the audiences, and the tokens of each."""
    rows = [
        {
            "audience": each.audience,
            "alg": each.alg,
            "migrate": None if each.migrate is None else asdict(each.migrate),
            "lifetime_s": each.lifetime_s,
            "grants": list(each.grants) if as_json else " ".join(each.grants),
            "clients": _clients_of_policy(each, as_json=as_json),
            "strangers": each.strangers,
            "scopes": list(each.scopes) if as_json else " ".join(each.scopes) or None,
            "claims": [name for _, name in each.named_claims] if as_json else _names_of(each),
        }
        for each in _sound(file).audiences.tables.values()
    ]
    columns = ["audience", "alg", "lifetime_s", "grants", "clients", "scopes", *(["claims"] if wide else [])]
    print_rows(
        rows,
        columns,
        name="audiences",
        as_json=as_json,
        wide=wide,
        headings={"lifetime_s": "life", "grants": "by"},
        whole=("audience",),
    )


@policy.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a policy file, for editors."""
    click.echo(as_text(), nl=False)


@policy.command("resource-metadata", short_help="Print the metadata that an API publishes.")
@click.argument("audience")
@_file_option
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: the output is always JSON.")
def resource_metadata(audience: str, file: Path | None) -> None:
    """Print the protected resource metadata (RFC 9728) of an audience: what its API publishes, so that clients find us."""
    reading = _reading(file)
    if faults := [fault for fault in reading.faults if fault.setting in (*_CONCERNED, "PYLON_OIDC_ISSUER")]:
        fail_configuration(faults)
    settings = reading.settings
    found = settings.audiences.tables.get(audience) or settings.audiences.of_resource(audience)
    if found is None:
        known = ", ".join(sorted(settings.audiences.audiences)) or "none"
        raise click.UsageError(f"There is no audience {audience}. Write one of the policy file: {known}.")
    address = resource_metadata_address(found.audience or "")
    if address is None:
        raise click.UsageError(
            f"{audience} is not the address of an API. Name the table by it, such as https://api.example.com."
        )
    issuer = settings.issuer or (f"http://localhost:{platform_port() or 4321}" if settings.dev_mode else None)
    if issuer is None:
        fault = Fault(
            "PYLON_OIDC_ISSUER", "is unset; write the public address, such as https://id.example.com"
        )
        fail_configuration([fault])
    click.echo(json.dumps(build_resource_metadata(issuer, found), indent=2))
    say(f"The API answers with this at {address}", err=True)


def _clients_of_policy(each: Policy, *, as_json: bool) -> Any:
    """The clients that may request tokens; none if no way involves a client."""
    if as_json:
        return None if each.clients is None else list(each.clients)
    if CLIENT_WAYS.isdisjoint(each.grants):
        return None
    known = "all" if each.clients is None else " ".join(each.clients)
    is_open = each.strangers and AUTHORIZATION_CODE in each.grants
    return (f"{known} and strangers".removeprefix(" and ") if is_open else known) or None


def _names_of(each: Policy) -> str | None:
    return " ".join([*(name for _, name in each.named_claims), *each.static]) or None


@policy.command("explain", short_help="Print the token that would be issued.")
@click.option("--audience", required=True, help="The audience of the token: the name of a table.")
@click.option(
    "--user", metavar="USER_ID", help="For this user, with their newest session, or what is known of them."
)
@click.option(
    "--session-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For the user in this file: the body of a session request, as JSON.",
)
@click.option("--client", metavar="CLIENT_ID", help="For this client.")
@click.option(
    "--grant",
    type=click.Choice(WAYS),
    help="The grant; if left out, mint, or client_credentials for a client.",
)
@click.option("--scope", help="The requested scope: words separated by spaces.")
@_file_option
@json_option
def explain(
    audience: str,
    user: str | None,
    session_file: Path | None,
    client: str | None,
    grant: str | None,
    scope: str | None,
    file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print the token that would be issued, with the source of each claim; or the rule that refuses it."""
    if (user is not None and session_file is not None) or not any((user, session_file, client)):
        raise click.UsageError(
            "No user or client is given, or two users. Write one of --user, --session-file and --client."
        )
    now = int(time.time())
    settings = _sound(file)
    who = _who(settings, user, session_file, client, now=now)
    way = grant or (MINT if who.session is not None else CLIENT_CREDENTIALS)
    if way in _IN_A_USERS_NAME and (who.session is None or who.client is None):
        raise click.UsageError(
            f"--client and --user or --session-file are both needed for {way}. Write both."
        )
    words = None if scope is None else tuple(scope.split())
    asked = Asked(way, "", now, session=who.session, client=who.client, scope=words)
    decided = decided_for(settings, audience, asked)
    has_place = settings.status_list and who.has_place_by(way)
    answer = explained(audience, way, decided, made_up=who.is_made_up, has_place=has_place)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif isinstance(decided, Refused):
        say(_refusal_in_words(audience, way, decided))
    else:
        move = decided.policy.migrate
        moved = "" if move is None else f" ({move.percent} % of the callers by {move.to})"
        say(f"A token for {audience} by {way}.")
        header = f"signed by {decided.alg}{moved}, has typ {decided.typ}"
        say(f"It is {header}, and is valid for {decided.expires_in} s.")
        click.echo()
        rows = [
            row | {"value": None if row["value"] is None else json.dumps(row["value"])}
            for row in rows_of(answer)
        ]
        print_rows(rows, ["claim", "value", "from"], name="claims", as_json=False, whole=("value",))


@dataclass(frozen=True, slots=True)
class _Who:
    """The user or client to explain a token for. If there is no stored session, one is made up."""

    session: Session | None = None
    client: Client | None = None
    is_made_up: bool = False

    def has_place_by(self, way: str) -> bool:
        """Whether a token names a place in a status list: a new grant has one, a session that began without them none."""
        if self.session is None:
            return False
        return way == AUTHORIZATION_CODE or self.is_made_up or self.session.status is not None


def _who(
    settings: Settings, user: str | None, session_file: Path | None, client_id: str | None, *, now: int
) -> _Who:
    who = _Who()
    if session_file is not None:
        who = _Who(session_of(_json_of(session_file), settings, now=now), is_made_up=True)
    if user is None and client_id is None:
        return who
    with configured_store("PYLON_OIDC_CLIENTS", "PYLON_OIDC_SCOPES") as store:
        if user is not None:
            session, made_up = _session_in(store, user, settings, now=now)
            who = _Who(session, is_made_up=made_up)
        if client_id is not None:
            client = Clients.of(settings, store).find(client_id, now=now)
            if client is None:
                raise click.UsageError(f"There is no client {client_id}.")
            who = replace(who, client=client)
    return who


def _refusal_in_words(audience: str, way: str, refused: Refused) -> str:
    lines = [f"No token for {audience} by {way}.", f"{refused.rule} refuses it: {why(refused, way)}."]
    if refused.step_up:
        lines.append(f"The user may sign in again: step_up {json.dumps(refused.step_up)}")
    return "\n".join(lines)


@policy.command("test", short_help="Run the cases of the policy file.")
@_file_option
@json_option
def run_cases(file: Path | None, *, as_json: bool) -> None:
    """Run the [[case]] tables of the policy file. Exit code 1 if one differs."""
    now = int(time.time())
    settings = _sound(file)
    found = settings.policies
    if found is None:
        fail_configuration([Fault(SETTING, "is unset; write the path of a policy file, or give --file")])
    cases: list[Case] = list(found.cases)
    results = []
    with clients_of(settings) as clients:
        for number, case in enumerate(cases, 1):
            results.append(result(settings, found, clients, case, number, now=now))
    differing = [row for row in results if row["differs"] is not None]
    if as_json:
        click.echo(json.dumps({"cases": results}, indent=2))
    else:
        rows = [row | {"differs": row["differs"] or "as expected"} for row in results]
        headings = {"differs": "result"}
        print_rows(
            rows, ["line", "audience", "grant", "differs"], name="cases", as_json=False, headings=headings
        )
        click.echo(f"{len(cases)} case{'' if len(cases) == 1 else 's'}, {len(differing)} differ.")
    if differing:
        raise SystemExit(FAILED)


# --- what they need ---


def _reading(file: Path | None) -> Reading:
    reading = read_settings(policies=file)
    if reading.settings.policies is None and not any(fault.setting == SETTING for fault in reading.faults):
        fail_configuration([Fault(SETTING, "is unset; write the path of a policy file, or give --file")])
    return reading


def _faults(reading: Reading) -> list[Fault]:
    return [fault for fault in reading.faults if fault.setting in _CONCERNED]


def _sound(file: Path | None) -> Settings:
    """The settings, with valid policies. Ends the command if there are faults."""
    reading = read_settings(policies=file)
    if faults := _faults(reading):
        fail_configuration(faults)
    return reading.settings


def _json_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read ({error.strerror}).") from None


def _session_in(store: Store, user_id: str, settings: Settings, *, now: int) -> tuple[Session, bool]:
    """The user's newest session; otherwise a new one with what is known of the user, which is reported as made up."""
    sessions = LocalSessions(store, lifetime_s=settings.session_lifetime_s)
    live = sessions.list(user_id, now=now)
    if live:
        return live[0], False
    user = sessions.user(user_id, now=now)
    known: Mapping[str, Any] = {
        "claims": user.claims,
        "roles": user.roles,
        "tenant_id": user.tenant_id,
        "attributes": user.attributes,
    }
    return new_session(SignIn(user_id, **known), lifetime_s=settings.session_lifetime_s, now=now), True
