"""`pylon-oidc keys`: the ring of signing keys, what will happen to it, and steps that are refused while unsafe."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import structlog

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
from service.keys.algorithms import ASYMMETRIC_ALGS
from service.keys.file import check_mode
from service.keys.material import (
    AsymmetricKey,
    KeyFault,
    load_private_pem,
    public_pem,
    pylon_kid,
)
from service.keys.memory import Seen
from service.keys.rotation import (
    KeyRecord,
    Keys,
    Margins,
    NoSuchKey,
    Ring,
    UnsafeStep,
    imported,
    published,
    revoked,
    role,
    rotated,
    rotation_is_safe_at,
    signer,
    taken_away,
    with_role,
)
from service.keys.sealing import Unsealable
from service.keys.signing import DEFAULT_RSA_KID
from service.keys.store import RingStore
from service.keys.timeline import Change, coming, overdue
from service.logs import configure_logging
from service.settings import Settings, read_settings
from service.startup import ring_memory, ring_store, ring_warnings

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
_NO_RING = "There is no ring of keys yet; the first start with PYLON_OIDC_KEYS=managed makes it."
_SHORT_KID = 12
_HEADINGS = {
    "published_at": "published",
    "signs_from": "signs",
    "retires_at": "retires",
    "gone_at": "goes",
    "revoked_at": "revoked",
}
_alg_option = click.option(
    "--alg", type=click.Choice(ASYMMETRIC_ALGS), help="Of this algorithm alone; all when left out."
)


@click.group(short_help="Look after the signing keys in the database.")
def keys() -> None:
    """Look after the signing keys in the database (PYLON_OIDC_KEYS=managed)."""


@dataclass(frozen=True)
class _Open:
    settings: Settings
    rings: RingStore
    margins: Margins
    now: int

    def ring(self) -> Ring:
        """The ring; ends the command where there is none."""
        ring = self.rings.load(now=self.now)
        if ring is None:
            fail(_NO_RING)
        return ring

    def shown(self) -> Ring | None:
        """The ring to be looked at, also where it is not authentic, which is said; None: there is none."""
        ring, doubt = self.rings.look(now=self.now)
        if doubt is not None:
            if ring is None:
                raise doubt
            say(f"warning: PYLON_KEY_ENCRYPTION_KEY: {doubt}", err=True)
        return ring


@contextlib.contextmanager
def _opened() -> Iterator[_Open]:
    settings, now = read_settings().settings, int(time.time())
    with configured_store(*_CONCERNED) as store:
        try:
            rings = ring_store(settings, store)
            ring, _ = rings.look(now=now)
            margins = settings.margins
            if ring is not None:  # a start alone changes how long a key signs
                margins = replace(margins, rotation_s=ring.rotation_s)
            yield _Open(settings, rings, margins, now)
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


def _changed(action: str, opened: _Open, ring: Ring, *steps: dict[str, Any]) -> None:
    """Let this host remember the ring, and say in the log, as the service does, who did what to which key."""
    memory = ring_memory(opened.settings)
    if memory.path.parent.is_dir():
        memory.note(ring.database_id, Seen(ring.version, taken_away(ring.keys)))
    configure_logging("info", "json")
    for facts in steps:
        structlog.get_logger("audit").warning("audit", action=action, uid=os.getuid(), at=opened.now, **facts)


# --- looking ---


def _row(key: KeyRecord, now: int, *, as_json: bool, wide: bool = False) -> dict[str, Any]:
    when = as_date if wide else as_minute
    row: dict[str, Any] = {"kid": key.kid, "alg": key.alg, "role": role(key, now)}
    for name in _TIMES:
        value = getattr(key, name)
        row[name] = value if as_json or value is None else when(value)
    return row | {"imported": key.imported, "sealed": key.sealed is not None}


@keys.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that are gone too.")
@wide_option
@json_option
def list_keys(*, everything: bool, wide: bool, as_json: bool) -> None:
    """List the keys with their roles and times."""
    with _opened() as opened:
        ring, now = opened.shown() or Ring(0, "", (), 0), opened.now
        shown = published(ring.keys, now)
        if everything:
            shown += [key for key in ring.keys if role(key, now) == "gone"]
        rows = [_row(key, now, as_json=as_json, wide=wide) for key in shown]
        columns = ["kid", "alg", "role", *_TIMES] if everything else ["kid", "alg", "role", *_TIMES[:-1]]
        print_rows(rows, columns, name="keys", as_json=as_json, wide=wide, headings=_HEADINGS)
        _warn(opened, ring)


def _warn(opened: _Open, ring: Ring) -> None:
    older = ring_memory(opened.settings).warning(ring)
    warnings = ring_warnings(ring, opened.rings, opened.margins, now=opened.now)
    for warning in [*warnings, *([older] if older else [])]:
        say(f"warning: {warning}", err=True)


@keys.command("plan", short_help="Show what will happen to the keys, and when.")
@click.option(
    "--svg",
    "svg",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the timeline into this file too.",
)
@wide_option
@json_option
def plan(*, svg: Path | None, wide: bool, as_json: bool) -> None:
    """Show what will happen to the keys, when, and why that is safe."""
    with _opened() as opened:
        ring, now, margins = opened.shown() or fail(_NO_RING), opened.now, opened.margins
        kept, shown = opened.rings.algs(now=now), published(ring.keys, now)
        changes = [change for change in coming(ring.keys, now, margins) if change.kid or change.alg in kept]
        safe = {
            alg: rotation_is_safe_at(ring.keys, alg, now, margins)
            for alg in _kept(ring.keys, now)
            if alg in kept
        }
        late = {key.kid for key in overdue(ring.keys, kept, now, margins)}
        if svg is not None:
            _write(svg, draw_svg(shown, changes, now, late))
        _warn(opened, ring)
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
        for key in _taken_away(ring, now, margins):
            until = as_date((key.revoked_at or now) + margins.learn_s)
            say(
                f"{key.alg} {key.kid} was taken away;\n  workers may sign by it, and the JWKS hold it, until {until}."
            )
        for alg, at in safe.items():
            word = "now" if at <= now else f"from {as_date(at)} on, in {at - now} s"
            say(f"{alg}: a rotation by hand is safe {word}.")


def _short(kid: str, *, wide: bool) -> str:
    """As much of a key's id as tells it apart: the rest of a row has more to say."""
    return kid if wide or len(kid) <= _SHORT_KID else f"{kid[: _SHORT_KID - 1]}…"


def _taken_away(ring: Ring, now: int, margins: Margins) -> list[KeyRecord]:
    """The keys that were revoked so lately that a worker may not know it yet."""
    return [key for key in ring.keys if key.revoked_at is not None and now < key.revoked_at + margins.learn_s]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}).")


def _kept(ring_keys: Keys, now: int) -> list[str]:
    return [alg for alg in ASYMMETRIC_ALGS if with_role(ring_keys, alg, "next", now)]


def _print_plan(
    opened: _Open, ring: Ring, shown: Sequence[KeyRecord], changes: Sequence[Change], safe: dict[str, int]
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
        "taken_away": [
            {"kid": key.kid, "alg": key.alg, "until": (key.revoked_at or opened.now) + opened.margins.learn_s}
            for key in _taken_away(ring, opened.now, opened.margins)
        ],
    }
    click.echo(json.dumps(told, indent=2))


@keys.command("export-public")
@click.argument("kid", required=False)
@click.option("--pem", is_flag=True, help="As a PEM instead of JSON; needs KID.")
def export_public(*, kid: str | None, pem: bool) -> None:
    """Print the published keys as a JWK Set, or one key."""
    if pem and kid is None:
        raise click.UsageError("--pem needs KID.")
    with _opened() as opened:
        ring = opened.ring()
        if kid is None:
            shown = [dict(key.jwk) for key in published(ring.keys, opened.now)]
            click.echo(json.dumps({"keys": shown}, indent=2))
            return
        key = next((each for each in ring.keys if each.kid == kid), None)
        if key is None:
            raise NoSuchKey(f"no key is called {kid}")
        click.echo(public_pem(key.jwk) if pem else json.dumps(dict(key.jwk), indent=2), nl=not pem)


# --- changing ---


@keys.command("rotate", short_help="Let the next key sign.")
@_alg_option
@click.option(
    "--compromised",
    is_flag=True,
    help="Somebody else has the key that signs: take it away now, whatever that breaks.",
)
@json_option
def rotate(*, alg: str | None, compromised: bool, as_json: bool) -> None:
    """Let the next key sign; refused while a verifier may not know it."""
    with _opened() as opened:
        before, now, margins = opened.ring(), opened.now, opened.margins
        # What a clock that was ahead has written is set right first, and stays so where the rotation is refused.
        before = opened.rings.ensure(margins, now=now)
        algs = [alg] if alg else _kept(before.keys, now)

        def step(ring: Ring) -> Keys:
            nonlocal before
            before = ring
            changed = ring.keys
            for each in algs:
                if compromised:
                    signing = signer(changed, each, now)
                    if signing is None:
                        raise NoSuchKey(f"no key of {each} signs")
                    changed = revoked(changed, signing.kid, now, margins)
                else:
                    changed = rotated(changed, each, now, margins)
            return changed

        ring = opened.rings.ensure(margins, now=now, step=step)
        done = [_what_rotated(before, ring, each, opened, compromised=compromised) for each in algs]
        _changed("keys.rotate", opened, ring, *({"compromised": compromised} | told for told in done))
        if as_json:
            click.echo(json.dumps({"rotated": done}, indent=2))
            return
        for told in done:
            say(_in_words(told, compromised=compromised))


def _what_rotated(before: Ring, ring: Ring, alg: str, opened: _Open, *, compromised: bool) -> dict[str, Any]:
    now, margins = opened.now, opened.margins
    old = signer(before.keys, alg, now)
    kept = next(key for key in ring.keys if old is not None and key.kid == old.kid)
    told: dict[str, Any] = {"alg": alg, "kid": kept.kid}
    if not compromised:
        new = with_role(ring.keys, alg, "next", now)[0]
        return told | {
            "successor": new.kid,
            "signs_from": new.signs_from,
            "published_until": kept.gone_at,
        }
    follows = signer(ring.keys, alg, now)
    return told | {
        "successor": None if follows is None else follows.kid,
        "signs_from": None if follows is None else follows.signs_from,
        "signs_until": now + margins.learn_s,
        "accepted_until": now + margins.learn_s + margins.max_age_s,
        "affected_until": now + margins.longest_token_s,
        "unknown_until": None if follows is None else max(now, follows.published_at + margins.lead_s),
    }


def _in_words(told: dict[str, Any], *, compromised: bool) -> str:
    if told["successor"] is None:
        head = f"{told['alg']}: nothing signs by {told['alg']} any more"
    else:
        head = f"{told['alg']}: {told['successor']} signs from {as_date(told['signs_from'])} on"
    if not compromised:
        return f"{head}; {told['kid']} stays published until {as_date(told['published_until'])}."
    lines = [
        f"{head}; {told['kid']} is taken away.",
        f"  Workers may still sign by it, and our key set hold it, until {as_date(told['signs_until'])}; verifiers that keep the set may accept it until {as_date(told['accepted_until'])}.",
        f"  Whoever holds a token that it signed is refused from then on, and needs a new one; the last such token would have ended at {as_date(told['affected_until'])}.",
    ]
    if told["successor"] is not None and told["unknown_until"] > told["signs_from"]:
        lines.append(
            f"  The new key was published a short while ago: verifiers with an old set refuse its tokens, until {as_date(told['unknown_until'])} at the latest."
        )
    return "\n".join(lines)


@keys.command("revoke", short_help="Take a key out of the key set.")
@click.argument("kid")
def revoke(kid: str) -> None:
    """Take a key out of the key set within a minute; where it signs, the next one does at once."""
    with _opened() as opened:
        opened.ring()
        ring = opened.rings.ensure(
            opened.margins,
            now=opened.now,
            step=lambda ring: revoked(ring.keys, kid, opened.now, opened.margins),
            though_shut=True,  # how a ring is mended whose encryption key is lost
        )
        _changed("keys.revoke", opened, ring, {"kid": kid})
        until = opened.now + opened.margins.learn_s + opened.margins.max_age_s
        say(f"Revoked. Verifiers that keep the key set may accept {kid} until {as_date(until)}.")
        _warn(opened, ring)


@keys.command("reseal", short_help="Seal every private key under another key.")
@click.option(
    "--repair",
    is_flag=True,
    help="Take a ring that was written without the encryption key; keys that cannot prove themselves are taken away.",
)
def reseal(*, repair: bool) -> None:
    """Seal every private key, and authenticate the ring, under the first key of PYLON_KEY_ENCRYPTION_KEY."""
    with _opened() as opened:
        if not repair:
            opened.ring()
        done = opened.rings.reseal(opened.margins, now=opened.now, repair=repair)
        facts = {
            "count": done.count,
            "under": opened.rings.sealing.names[0],
            "taken_away": done.taken_away,
        }
        _changed("keys.reseal", opened, done.ring, facts)
        say(
            f"Sealed {done.count} private keys under the first encryption key. The others may be dropped when every replica has this one."
        )
        for kid in done.taken_away:
            say(f"Took {kid} away: no private part under an encryption key that is here belongs to it.")


@keys.command("import", short_help="Take in a private key from a PEM file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--kid",
    help="The name that its tokens call it by; the one of the settings, or its thumbprint, when left out.",
)
@click.option(
    "--pylon-kid",
    is_flag=True,
    help="The name that Pylon gives its key file: 16 hex digits of the modulus' hash.",
)
@click.option(
    "--alg", type=click.Choice(ASYMMETRIC_ALGS), help="By what it signs; RS256 for an RSA key when left out."
)
@click.option(
    "--next", "as_next", is_flag=True, help="It shall sign next, and not only verify what it signed."
)
def import_key(*, file: Path, kid: str | None, pylon_kid: bool, alg: str | None, as_next: bool) -> None:
    """Take in a private key, a PEM file, under the name that it has.

    The first key of its algorithm goes on signing. Where there is one that signs, it is published for as long as
    its tokens may live.
    """
    if kid is not None and pylon_kid:
        raise click.UsageError("Write --kid or --pylon-kid.")
    with _opened() as opened:
        try:
            with file.open("rb") as opened_file:
                check_mode(opened_file.fileno(), f"pipe it: cat {file} | pylon-oidc keys import /dev/stdin")
                private, by = load_private_pem(opened_file.read().decode("utf-8", "replace"), alg)
        except OSError as error:
            fail(f"The file cannot be read ({error.strerror}).")
        name = _usual_kid(private, opened.settings, pylon=pylon_kid) if kid is None else kid
        if not (0 < len(name) <= 255 and name.isascii() and name.isprintable() and " " not in name):
            raise click.UsageError("--kid is no key id; write 1 to 255 visible ASCII characters.")

        def step(ring: Ring) -> Keys:
            record = opened.rings.record(private, by, name, ring.database_id)
            kept = by in opened.rings.algs(now=opened.now)
            return imported(ring.keys, record, opened.now, opened.margins, as_next=as_next, kept=kept)

        ring = opened.rings.ensure(opened.margins, now=opened.now, step=step)
        is_now = role(next(key for key in ring.keys if key.kid == name), opened.now)
        _changed("keys.import", opened, ring, {"kid": name, "alg": by, "role": is_now})
        say(f"{by}: {name} is {is_now}.")


def _usual_kid(private: AsymmetricKey, settings: Settings, *, pylon: bool) -> str:
    if pylon:
        return pylon_kid_of(private)
    if settings.jwks_kid is not None:
        return settings.jwks_kid
    return DEFAULT_RSA_KID if settings.jwks_rsa_n is not None else private.thumbprint()


def pylon_kid_of(private: AsymmetricKey) -> str:
    """Pylon's name of an RSA key.

    Raises:
        click.UsageError: for another kind of key.
    """
    name = pylon_kid(private)
    if name is None:
        raise click.UsageError("--pylon-kid is for an RSA key.")
    return name
