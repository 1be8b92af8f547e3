"""`pylon-oidc keys list`, `plan` and `export-public`: show the key ring and its future changes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from service.cli.common import (
    as_date,
    as_minute,
    configured_store,
    fail,
    json_option,
    print_rows,
    say,
    wide_option,
)
from service.cli.key_picture import draw_svg, draw_text, marks
from service.keys.material import KeyFault, public_pem
from service.keys.operations import lately_revoked, safe_rotations
from service.keys.ring import KeyRecord, Margins, NoSuchKey, Ring, UnsafeStep, published, role
from service.keys.sealing import Unsealable
from service.keys.starting import ring_memory, ring_store
from service.keys.store import RingStore
from service.keys.timeline import Change, coming, overdue
from service.keys.warnings import ring_warnings
from service.settings import Settings, read_settings

_CONCERNED = (
    "PYLON_OIDC_KEYS",
    "PYLON_KEY_ENCRYPTION_KEY",
    "PYLON_OIDC_ALGS",
    "PYLON_OIDC_KEY_ROTATION_DAYS",
    "PYLON_OIDC_ID_TOKEN_LIFETIME_SECS",
    "PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS",
    "PYLON_JWT_LIFETIME_SECS",
)
_TIMES = ("published_at", "signs_from", "retires_at", "gone_at", "revoked_at")
_NO_RING = "There is no key ring yet; the first start with PYLON_OIDC_KEYS=managed creates it."
_SHORT_KID = 12
_HEADINGS = {
    "published_at": "published",
    "signs_from": "signs",
    "retires_at": "retires",
    "gone_at": "goes",
    "revoked_at": "revoked",
}


@dataclass(frozen=True)
class Opened:
    """The key ring of a command, and the objects that belong to it."""

    settings: Settings
    rings: RingStore
    margins: Margins
    now: int

    def ring(self) -> Ring:
        """The ring. Ends the command if there is none."""
        ring = self.rings.load(now=self.now)
        if ring is None:
            fail(_NO_RING)
        return ring

    def shown(self) -> Ring | None:
        """The ring to show, or None. If it is not authentic, print a warning and still return it."""
        ring, doubt = self.rings.look(now=self.now)
        if doubt is not None:
            if ring is None:
                raise doubt
            say(f"warning: PYLON_KEY_ENCRYPTION_KEY: {doubt}", err=True)
        return ring


@contextlib.contextmanager
def opened_ring() -> Iterator[Opened]:
    """Open the ring. A refusal ends the command with a message."""
    settings, now = read_settings().settings, int(time.time())
    with configured_store(*_CONCERNED) as store:
        try:
            rings = ring_store(settings, store)
            ring, _ = rings.look(now=now)
            margins = settings.margins
            if ring is not None:  # only a start changes how long a key signs
                margins = replace(margins, rotation_s=ring.rotation_s)
            yield Opened(settings, rings, margins, now)
        except UnsafeStep as step:
            when = (
                ""
                if step.safe_at is None
                else f" It is safe from {as_date(step.safe_at)} on, in {step.safe_at - now} s."
            )
            fail(f"Refused: {step}.{when}")
        except NoSuchKey as error:
            fail(f"Refused: {error.args[0]}.")
        except (Unsealable, KeyFault) as error:
            fail(
                f"PYLON_KEY_ENCRYPTION_KEY: {error}" if isinstance(error, Unsealable) else f"The key {error}"
            )


def _row(key: KeyRecord, now: int, *, as_json: bool, wide: bool = False) -> dict[str, Any]:
    when = as_date if wide else as_minute
    row: dict[str, Any] = {"kid": key.kid, "alg": key.alg, "role": role(key, now)}
    for name in _TIMES:
        value = getattr(key, name)
        row[name] = value if as_json or value is None else when(value)
    return row | {"imported": key.imported, "sealed": key.sealed is not None}


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Include keys that are gone.")
@wide_option
@json_option
def list_keys(*, everything: bool, wide: bool, as_json: bool) -> None:
    """List the keys with their roles and times."""
    with opened_ring() as opened:
        ring, now = opened.shown() or Ring(0, "", (), 0), opened.now
        shown = published(ring.keys, now)
        if everything:
            shown += [key for key in ring.keys if role(key, now) == "gone"]
        rows = [_row(key, now, as_json=as_json, wide=wide) for key in shown]
        columns = ["kid", "alg", "role", *_TIMES] if everything else ["kid", "alg", "role", *_TIMES[:-1]]
        print_rows(rows, columns, name="keys", as_json=as_json, wide=wide, headings=_HEADINGS)
        warn_of(opened, ring)


def warn_of(opened: Opened, ring: Ring) -> None:
    """Print warnings about a ring to stderr."""
    older = ring_memory(opened.settings).warning(ring)
    warnings = ring_warnings(ring, opened.rings, opened.margins, now=opened.now)
    for warning in [*warnings, *([older] if older else [])]:
        say(f"warning: {warning}", err=True)


@click.command("plan", short_help="Show what will happen to the keys, and when.")
@click.option(
    "--svg",
    "svg",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also draw the timeline into this file.",
)
@wide_option
@json_option
def plan(*, svg: Path | None, wide: bool, as_json: bool) -> None:
    """Show what will happen to the keys, when, and why that is safe."""
    with opened_ring() as opened:
        ring, now, margins = opened.shown() or fail(_NO_RING), opened.now, opened.margins
        kept, shown = opened.rings.algs(now=now), published(ring.keys, now)
        changes = [change for change in coming(ring.keys, now, margins) if change.kid or change.alg in kept]
        safe = safe_rotations(ring.keys, kept, now, margins)
        late = {key.kid for key in overdue(ring.keys, kept, now, margins)}
        if svg is not None:
            _write(svg, draw_svg(shown, changes, now, late))
        warn_of(opened, ring)
        if as_json:
            _print_plan(opened, ring, shown, changes, safe)
            return
        click.echo(draw_text(shown, changes, now, late))
        click.echo()
        letters = marks(changes)
        rows = [
            {
                "mark": letters.get(change.at, ""),
                "when": as_date(change.at) if wide else as_minute(change.at),
                "alg": change.alg,
                "kid": _short(change.kid or "a new one", wide=wide),
                "what": change.what,
                "safe_because": change.reason,
            }
            for change in changes
        ]
        columns = ["mark", "when", "alg", "kid", "what", "safe_because"]
        print_rows(rows, columns, name="changes", as_json=False, wide=wide)
        click.echo()
        for key, until in lately_revoked(ring, now, margins):
            say(
                f"{key.alg} {key.kid} was removed;\n  workers may sign with it, and the JWKS may contain it, until {as_date(until)}."
            )
        for alg, at in safe.items():
            word = "now" if at <= now else f"from {as_date(at)} on, in {at - now} s"
            say(f"{alg}: a rotation by hand is safe {word}.")


def _short(kid: str, *, wide: bool) -> str:
    """The first characters of a key's id, enough to identify it, so that the rest of a row has room."""
    return kid if wide or len(kid) <= _SHORT_KID else f"{kid[: _SHORT_KID - 1]}…"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}).")


def _print_plan(
    opened: Opened, ring: Ring, shown: Sequence[KeyRecord], changes: Sequence[Change], safe: dict[str, int]
) -> None:
    told = {
        "now": opened.now,
        "keys": [_row(key, opened.now, as_json=True) for key in shown],
        "changes": [
            {
                "at": change.at,
                "alg": change.alg,
                "kid": change.kid,
                "what": change.what,
                "reason": change.reason,
            }
            for change in changes
        ],
        "rotation_is_safe_at": safe,
        "removed": [
            {"kid": key.kid, "alg": key.alg, "until": until}
            for key, until in lately_revoked(ring, opened.now, opened.margins)
        ],
    }
    click.echo(json.dumps(told, indent=2))


@click.command("export-public")
@click.argument("kid", required=False)
@click.option("--pem", is_flag=True, help="As a PEM instead of JSON; needs KID.")
def export_public(*, kid: str | None, pem: bool) -> None:
    """Print the published keys as a JWK Set, or one key."""
    if pem and kid is None:
        raise click.UsageError("--pem needs KID.")
    with opened_ring() as opened:
        ring = opened.ring()
        if kid is None:
            shown = [dict(key.jwk) for key in published(ring.keys, opened.now)]
            click.echo(json.dumps({"keys": shown}, indent=2))
            return
        key = next((each for each in ring.keys if each.kid == kid), None)
        if key is None:
            raise NoSuchKey(f"no key is called {kid}")
        click.echo(public_pem(key.jwk) if pem else json.dumps(dict(key.jwk), indent=2), nl=not pem)
