"""`pylon-oidc keys migration`: how far each audience has moved from one algorithm to another."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from service.cli.common import (
    as_date,
    as_minute,
    configured_store,
    fail_configuration,
    json_option,
    print_rows,
    say,
    wide_option,
)
from service.policies.moving import Progress, progress
from service.records.starts import Starts
from service.settings import Settings, read_settings

_CONCERNED = (
    *("PYLON_POLICIES", "PYLON_JWT_ALG", "PYLON_JWT_SECRET", "PYLON_JWT_LIFETIME_SECS", "PYLON_JWT_AUDIENCE"),
    *("PYLON_OIDC_KEYS", "PYLON_OIDC_ALGS", "PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH"),
)
_COLUMNS = ("audience", "alg", "to", "percent", "last_issued_at", "last_expires_at")
_HEADINGS = {
    "alg": "now",
    "to": "next",
    "percent": "share",
    "last_issued_at": "last of the old",
    "last_expires_at": "ends",
}
_NO_FILE = "to move to another algorithm, write a table for this audience in the file of PYLON_POLICIES"


@click.command("migration", short_help="Show how far each audience has moved to another algorithm.")
@wide_option
@json_option
def migration(*, wide: bool, as_json: bool) -> None:
    """Show which algorithm signs the tokens of each audience now and next, and the next safe step.

    The last token of the old algorithm is known from the starts of the service's processes.
    """
    reading, now = read_settings(), int(time.time())
    if faults := [fault for fault in reading.faults if fault.setting in _CONCERNED]:
        fail_configuration(faults)
    settings = reading.settings
    with configured_store() as store:
        runs = Starts(store).read(now=now)
    found = [
        Progress(policy, None, _NO_FILE)
        if settings.policies is None
        else progress(
            policy,
            runs.get(audience or "", ()),
            now=now,
            lead_s=settings.margins.lead_s,
            better=_better(settings),
        )
        for audience, policy in settings.audiences.tables.items()
    ]
    if as_json:
        click.echo(json.dumps({"audiences": [_facts(each) for each in found]}, indent=2))
        return
    rows = [_row(each, wide=wide) for each in found]
    print_rows(rows, _COLUMNS, name="audiences", as_json=False, wide=wide, headings=_HEADINGS)
    for each in found:
        click.echo()
        when = f" Safe from {as_date(each.safe_at)} on." if each.safe_at and each.safe_at > now else ""
        say(f"{each.policy.audience or 'without an audience'}: {each.step}.{when}")


def _better(settings: Settings) -> str | None:
    """An algorithm that there is a key for."""
    if settings.managed:
        return "ES256" if "ES256" in settings.algs else settings.algs[0]
    return "RS256" if settings.has_private_key else None


def _facts(found: Progress) -> dict[str, Any]:
    move, last = found.policy.migrate, found.last
    return {
        "audience": found.policy.audience,
        "alg": found.policy.alg,
        "to": None if move is None else move.to,
        "percent": None if move is None else move.percent,
        "last_alg": None if last is None else last.alg,
        "last_issued_at": None if last is None else last.given_at,
        "last_expires_at": None if last is None else last.ends_at,
        "next_step": found.step,
        "safe_at": found.safe_at,
    }


def _row(found: Progress, *, wide: bool) -> dict[str, Any]:
    facts = _facts(found)
    when = as_date if wide else as_minute
    given, ends = facts["last_issued_at"], facts["last_expires_at"]
    share = None if facts["percent"] is None else f"{facts['percent']} %"
    shown = {"percent": share, "last_issued_at": None, "last_expires_at": None}
    if given is not None:
        shown |= {"last_issued_at": f"{facts['last_alg']}, {when(given)}", "last_expires_at": when(ends)}
    return facts | shown
