"""`pylon-oidc check`: what the service would say of its configuration, without starting or making anything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from service.cli.common import WRONG_CONFIGURATION, json_option
from service.issuer import FALLBACK_ISSUER
from service.key_material import KeyFault
from service.protocol.key_ring import ASYMMETRIC_ALGS, published, role
from service.protocol.metadata import build_metadata
from service.protocol.sealed_keys import Unsealable
from service.settings import Fault, Settings
from service.startup import inspect, load_keyring, open_store, ring_store, ring_warnings
from service.storage.interface import StoreUnavailable

_CANNOT_MINT = "no key for {alg}: minting answers 501 JWT_NOT_CONFIGURED until PYLON_JWT_SECRET is set"


@click.command()
@json_option
def check(*, as_json: bool) -> None:
    """Check the configuration of this environment; makes no file.

    Faults keep the service from starting (exit 2). Warnings and notes do not.
    """
    settings, faults, warnings = inspect()
    notes: list[str] = []
    if not faults:
        try:
            notes = list(_notes(settings))
        except KeyFault as error:
            faults = [Fault("PYLON_OIDC_PRIVATE_KEY", str(error))]
        except Unsealable as error:
            faults = [Fault("PYLON_KEY_ENCRYPTION_KEY", str(error))]
    if as_json:
        found = [{"name": fault.name, "text": fault.text} for fault in faults]
        click.echo(json.dumps({"faults": found, "warnings": warnings, "notes": notes}, indent=2))
    else:
        for fault in faults:
            click.echo(str(fault), err=True)
        for warning in warnings:
            click.echo(f"warning: {warning}")
        for note in notes:
            click.echo(f"note: {note}")
        if not faults:
            click.echo("The configuration is sound.")
    if faults:
        raise SystemExit(WRONG_CONFIGURATION)


def _notes(settings: Settings) -> Iterator[str]:
    if settings.managed:
        yield from _managed_notes(settings)
        return
    keyring = load_keyring(settings, make_key_file=False)
    yield f"issuer: {settings.issuer or 'from the Host of each request'}"
    yield f"database: {'SQLite' if settings.database.is_sqlite else 'PostgreSQL'}"
    if settings.key_file is not None and settings.key_file.key is None:
        yield "PYLON_OIDC_KEY_PATH: the file is missing and will be made at the first start"
    for key in keyring.published:
        yield f"published key: {key.kid} ({key.alg})"
    if not keyring.can_mint and settings.key_file is None:
        yield _CANNOT_MINT.format(alg=settings.jwt_alg)
    yield from _metadata_notes(
        build_metadata(settings.issuer or FALLBACK_ISSUER, algs=keyring.advertised_algs)
    )


def _managed_notes(settings: Settings) -> Iterator[str]:
    """The ring as it is: read, opened, and left as it was.

    Raises:
        Unsealable: when a key of it cannot be opened.
    """
    now = int(time.time())
    algs = list(settings.algs)
    yield f"issuer: {settings.issuer or 'from the Host of each request'}"
    yield f"database: {'SQLite' if settings.database.is_sqlite else 'PostgreSQL'}"
    store = open_store(settings)
    rings = ring_store(settings, store)
    try:
        ring = rings.load(now=now)
        if ring is None:
            yield "the ring of keys is empty, and will be made at the first start"
        else:
            for key in published(ring.keys, now):
                rings.open(key, ring)
                yield f"published key: {key.kid} ({key.alg}), {role(key, now)}"
            yield from (f"warning: {text}" for text in ring_warnings(ring, rings, settings.margins, now=now))
            algs = sorted({key.alg for key in published(ring.keys, now)}, key=ASYMMETRIC_ALGS.index)
    except StoreUnavailable:
        yield "the ring of keys cannot be read now; a missing database is made at the first start"
    finally:
        store.close()
    if settings.jwt_alg == "HS256" and settings.jwt_secret is None:
        yield _CANNOT_MINT.format(alg="HS256")
    yield from _metadata_notes(build_metadata(settings.issuer or FALLBACK_ISSUER, algs=algs))


def _metadata_notes(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What Authlib's validators say of the discovery document; each member is asked, so that none hides another.

    Spec: RFC 8414 §2, OpenID Connect Discovery 1.0 §3
    """
    from authlib.oidc.discovery import OpenIDProviderMetadata

    document = OpenIDProviderMetadata(metadata)
    for member in document.REGISTRY_KEYS:
        try:
            getattr(document, f"validate_{member}")()
        except ValueError as error:
            yield f"discovery: {error}"
