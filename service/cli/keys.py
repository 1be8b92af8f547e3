"""`pylon-oidc keys`: changes the ring of signing keys, and refuses unsafe changes; `keys_shown` shows it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import structlog

from service.cli.common import as_date, fail, json_option, say
from service.cli.keys_migration import migration
from service.cli.keys_shown import Opened, export_public, list_keys, opened_ring, plan, warn_of
from service.keys import operations
from service.keys.algorithms import ASYMMETRIC_ALGS
from service.keys.file import check_mode
from service.keys.material import AsymmetricKey, load_private_pem, pylon_kid
from service.keys.memory import Seen
from service.keys.operations import Rotation, Withdrawal
from service.keys.ring import Ring, taken_away
from service.keys.signing import DEFAULT_RSA_KID
from service.keys.starting import ring_memory
from service.logs import configure_logging
from service.settings import Settings

_alg_option = click.option(
    "--alg", type=click.Choice(ASYMMETRIC_ALGS), help="Only this algorithm; all if left out."
)


@click.group(short_help="Manage the signing keys in the database.")
def keys() -> None:
    """Manage the signing keys in the database (PYLON_OIDC_KEYS=managed)."""


for _command in (list_keys, plan, export_public, migration):
    keys.add_command(_command)


def _changed(action: str, opened: Opened, ring: Ring, *steps: dict[str, Any]) -> None:
    """Store the ring's checkpoint on this host, and log the change like the service does."""
    memory = ring_memory(opened.settings)
    if memory.path.parent.is_dir():
        memory.note(ring.database_id, Seen(ring.version, taken_away(ring.keys)))
    configure_logging("info", "json")
    for facts in steps:
        structlog.get_logger("audit").warning("audit", action=action, uid=os.getuid(), at=opened.now, **facts)


@keys.command("rotate", short_help="Make the next key sign.")
@_alg_option
@click.option(
    "--compromised",
    is_flag=True,
    help="The signing key is compromised: remove it now, even if valid tokens stop working.",
)
@json_option
def rotate(*, alg: str | None, compromised: bool, as_json: bool) -> None:
    """Make the next key sign; refused while a verifier may not know it."""
    with opened_ring() as opened:
        opened.ring()
        done = operations.rotate(
            opened.rings, opened.margins, now=opened.now, alg=alg, compromised=compromised
        )
        _changed(
            "keys.rotate",
            opened,
            done.ring,
            *({"compromised": compromised} | asdict(key) for key in done.keys),
        )
        if as_json:
            click.echo(json.dumps({"rotated": [asdict(key) for key in done.keys]}, indent=2))
            return
        for key in done.keys:
            say(_in_words(key))


def _in_words(told: Rotation | Withdrawal) -> str:
    if told.successor is None or told.signs_from is None:
        head = f"{told.alg}: nothing signs with {told.alg} any more"
    else:
        head = f"{told.alg}: {told.successor} signs from {as_date(told.signs_from)} on"
    if isinstance(told, Rotation):
        return f"{head}; {told.kid} stays published until {as_date(told.published_until or 0)}."
    lines = [
        f"{head}; {told.kid} is removed.",
        f"  Workers may still sign with it, and the key set may contain it, until {as_date(told.signs_until)}; verifiers that keep the set may accept it until {as_date(told.accepted_until)}.",
        f"  From then on, tokens that it signed are refused, and their holders need new ones; the last such token would have expired at {as_date(told.affected_until)}.",
    ]
    if told.unknown_until is not None and told.unknown_until > (told.signs_from or 0):
        lines.append(
            f"  The new key was published a short while ago: verifiers with an old set refuse its tokens, until {as_date(told.unknown_until)} at the latest."
        )
    return "\n".join(lines)


@keys.command("revoke", short_help="Remove a key from the key set.")
@click.argument("kid")
def revoke(kid: str) -> None:
    """Remove a key from the key set within a minute; if it is the active key, the next one signs at once."""
    with opened_ring() as opened:
        opened.ring()
        done = operations.revoke(opened.rings, opened.margins, kid, now=opened.now)
        _changed("keys.revoke", opened, done.ring, {"kid": kid})
        say(
            f"Revoked. Verifiers that keep the key set may accept {kid} until {as_date(done.believed_until)}."
        )
        warn_of(opened, done.ring)


@keys.command("reseal", short_help="Encrypt every private key with another key.")
@click.option(
    "--repair",
    is_flag=True,
    help="Accept a ring that was written without the encryption key; keys that cannot prove themselves are removed.",
)
def reseal(*, repair: bool) -> None:
    """Encrypt every private key, and authenticate the ring, with the first key of PYLON_KEY_ENCRYPTION_KEY."""
    with opened_ring() as opened:
        if not repair:
            opened.ring()
        done = operations.reseal(opened.rings, opened.margins, now=opened.now, repair=repair)
        facts = {
            "count": done.count,
            "under": opened.rings.sealing.names[0],
            "removed": done.taken_away,
        }
        _changed("keys.reseal", opened, done.ring, facts)
        say(
            f"Sealed {done.count} private keys under the first encryption key. You can remove the others when every replica has this one."
        )
        for kid in done.taken_away:
            say(f"Removed {kid}: it has no private part that a known encryption key decrypts.")


@keys.command("import", short_help="Add a private key from a PEM file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--kid",
    help="Its kid in tokens; if left out, that of the settings, or its thumbprint.",
)
@click.option(
    "--pylon-kid",
    is_flag=True,
    help="The name that Pylon gives its key file: 16 hex digits of the modulus' hash.",
)
@click.option(
    "--alg",
    type=click.Choice(ASYMMETRIC_ALGS),
    help="Its signature algorithm; RS256 for an RSA key if left out.",
)
@click.option(
    "--next",
    "as_next",
    is_flag=True,
    help="Make it the next key to sign; otherwise it only verifies tokens that it has signed.",
)
def import_key(*, file: Path, kid: str | None, pylon_kid: bool, alg: str | None, as_next: bool) -> None:
    """Add a private key from a PEM file, under its existing name.

    The first key of an algorithm keeps signing. If another key already signs, the added key is published for as long
    as its tokens may live.
    """
    if kid is not None and pylon_kid:
        raise click.UsageError("Write --kid or --pylon-kid.")
    with opened_ring() as opened:
        try:
            with file.open("rb") as opened_file:
                check_mode(opened_file.fileno(), f"pipe it: cat {file} | pylon-oidc keys import /dev/stdin")
                private, by = load_private_pem(opened_file.read().decode("utf-8", "replace"), alg)
        except OSError as error:
            fail(f"The file cannot be read ({error.strerror}).")
        name = _usual_kid(private, opened.settings, pylon=pylon_kid) if kid is None else kid
        if not (0 < len(name) <= 255 and name.isascii() and name.isprintable() and " " not in name):
            raise click.UsageError("--kid is not a key id; write 1 to 255 visible ASCII characters.")

        done = operations.import_key(
            opened.rings, opened.margins, private, alg=by, kid=name, as_next=as_next, now=opened.now
        )
        _changed("keys.import", opened, done.ring, {"kid": name, "alg": by, "role": done.role})
        say(f"{by}: {name} is {done.role}.")


def _usual_kid(private: AsymmetricKey, settings: Settings, *, pylon: bool) -> str:
    if pylon:
        return pylon_kid_of(private)
    if settings.jwks_kid is not None:
        return settings.jwks_kid
    return DEFAULT_RSA_KID if settings.jwks_rsa_n is not None else private.thumbprint()


def pylon_kid_of(private: AsymmetricKey) -> str:
    """The name that Pylon gives an RSA key.

    Raises:
        click.UsageError: for another kind of key.
    """
    name = pylon_kid(private)
    if name is None:
        raise click.UsageError("--pylon-kid is for an RSA key.")
    return name
