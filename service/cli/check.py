"""`pylon-oidc check`: reports what the service would report about its configuration, without starting or creating anything."""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from service.cli.common import FAILED, WRONG_CONFIGURATION, json_option, say
from service.cli.doctor import PublicDocuments, ca_option, connect_to_option, public_documents
from service.issuer import FALLBACK_ISSUER, InvalidHost, IssuerResolver
from service.keys.algorithms import in_order
from service.keys.material import KeyFault
from service.keys.ring import KeyRecord, Ring, published, role
from service.keys.sealing import Unsealable
from service.keys.starting import load_keyring, ring_memory, ring_store
from service.keys.warnings import replica_warnings, ring_warnings
from service.protocol.metadata import build_metadata
from service.settings import Fault, Settings, given_names
from service.startup import Inspected, inspect, open_store
from service.storage.interface import StoreUnavailable

#: How long the published key set may be older: a worker reads the ring once a minute, and caches keep it for 300 s.
_OUTSIDE_WITHIN_S = 360
#: Servers that do not pass the path to WSGI as it was sent, so that encoded and plain characters look the same.
_WITHOUT_RAW_PATH = ("granian",)
_RAW_PATH = (
    "server: {server} is installed. With pylon-oidc serve, it passes the path as it was sent, without a host or a "
    "fragment. With its own command it does not, so a route also answers to an encoded spelling; if you start it that "
    "way, bind it to loopback or a Unix socket behind the nginx site, which refuses other spellings"
)
_NOBODY_BEGINS = (
    "sessions: PYLON_ADMIN_TOKEN and PYLON_TRUSTED_SECRET are unset: nobody can start a session; "
    "set one of them, and give it to the app's backend"
)
_CANNOT_MINT = "no key for {alg}: minting answers 501 JWT_NOT_CONFIGURED until PYLON_JWT_SECRET is set"


@click.command()
@click.option("--url", help="Compare the answers of this address with those of this configuration.")
@ca_option
@connect_to_option
@json_option
def check(*, as_json: bool, url: str | None, ca: Path | None, connect_to: tuple[str, ...]) -> None:
    """Check the configuration of this environment; creates no file.

    Faults keep the service from starting (exit 2). Warnings and notes do not. With --url, a difference is exit 1.
    """
    now = int(time.time())
    found = inspect(now=now)
    settings, faults, warnings = found.settings, found.faults, found.warnings
    notes = [_seen()]
    differences: list[dict[str, Any]] = []
    if not faults:
        try:
            ring = _read_ring(found, now) if settings.managed else None
            notes += _notes(settings, ring, warnings, now)
            if url is not None:
                public = public_documents(url, ca, connect_to)
                differences = list(_differences(settings, ring, public, notes, now))
        except KeyFault as error:
            faults = [Fault("PYLON_OIDC_PRIVATE_KEY", str(error))]
        except Unsealable as error:
            faults = [Fault("PYLON_KEY_ENCRYPTION_KEY", str(error))]
    if as_json:
        listed = [{"name": fault.name, "text": fault.text} for fault in faults]
        told = {"faults": listed, "warnings": warnings, "notes": notes}
        click.echo(json.dumps(told | ({} if url is None else {"differences": differences}), indent=2))
    else:
        _print(faults, warnings, notes)
        if url is not None and not faults:
            _print_differences(differences)
    if faults:
        raise SystemExit(WRONG_CONFIGURATION)
    if differences:
        raise SystemExit(FAILED)


def _print(faults: Sequence[Fault], warnings: Sequence[str], notes: Sequence[str]) -> None:
    for fault in faults:
        say(str(fault), err=True)
    for warning in warnings:
        say(f"warning: {warning}")
    for note in notes:
        say(f"note: {note}")
    if not faults:
        click.echo("The configuration is sound.")


def _print_differences(differences: Sequence[Mapping[str, Any]]) -> None:
    for each in differences:
        say(f"{each['what']}\n  inside   {each['inside']}\n  outside  {each['outside']}")
    if not differences:
        click.echo("The public address answers like this configuration.")


@dataclass(frozen=True)
class _RingFound:
    """The ring of managed keys, read once; None if there is none."""

    ring: Ring | None


def _read_ring(found: Inspected, now: int) -> _RingFound | None:
    """The ring that was already read, or else read it now. None if it cannot be read.

    Raises:
        Unsealable: if it is not authentic.
    """
    if found.ring_is_known:
        return _RingFound(found.ring)
    store = open_store(found.settings)
    try:
        return _RingFound(ring_store(found.settings, store).load(now=now))
    except StoreUnavailable:
        return None
    finally:
        store.close()


def _differences(
    settings: Settings, ring: _RingFound | None, public: PublicDocuments, notes: list[str], now: int
) -> Iterator[dict[str, Any]]:
    """Compare what this configuration would answer with what the address answers. A difference that only needs time is a note."""
    asked, discovery, jwks = public.url, public.discovery, public.jwks
    resolver = IssuerResolver(settings.issuer, settings.allowed_hosts, settings.dev_mode)
    try:
        issuer = resolver.resolve(asked.partition("://")[2].partition("/")[0], host_required=True)
    except InvalidHost:
        yield {"what": "Host", "inside": "400 INVALID_HOST", "outside": asked}
        return
    keys = _keys(settings, ring, now)
    algs = list(settings.algs) if keys is None else keys.algs
    inside = _metadata(settings, issuer, algs)
    for member in sorted(inside.keys() | discovery.keys()):
        if inside.get(member) != discovery.get(member):
            yield _difference(f"discovery: {member}", inside.get(member), discovery.get(member))
    if keys is not None:
        theirs = sorted({str(key.get("kid")) for key in jwks if isinstance(key, dict)})
        differing = set(keys.kids).symmetric_difference(theirs)
        if differing <= keys.changed_at.keys():  # caches may be that old
            notes += (
                f"jwks: {kid} {'is published' if kid in keys.kids else 'is no longer published'} since "
                f"{now - keys.changed_at[kid]} s, outside within {_OUTSIDE_WITHIN_S} s"
                for kid in sorted(differing)
            )
        else:
            yield _difference("jwks: kid", keys.kids, theirs)
    if public.takes_encoded:
        yield _difference("GET /%6Fidc/jwks, another spelling of a path", 404, 200)


@dataclass(frozen=True)
class _Published:
    """The algorithms and key ids to publish, and recent changes of keys that caches may not know yet."""

    algs: list[str]
    kids: list[str]
    changed_at: Mapping[str, int]


def _keys(settings: Settings, found: _RingFound | None, now: int) -> _Published | None:
    """The keys to publish; None if they are not created yet."""
    if not settings.managed:
        keyring = load_keyring(settings, make_key_file=False)
        missing = settings.key_file is not None and settings.key_file.key is None
        return (
            None
            if missing
            else _Published(keyring.advertised_algs, sorted(key.kid for key in keyring.published), {})
        )
    if found is None or found.ring is None:
        return None
    ring = found.ring
    keys = list(published(ring.keys, now))
    algs = in_order({key.alg for key in keys})
    changes = {key.kid: max(_changes(key, now)) for key in ring.keys}
    recent = {kid: at for kid, at in changes.items() if now - at < _OUTSIDE_WITHIN_S}
    return _Published(algs, sorted(key.kid for key in keys), recent)


def _changes(key: KeyRecord, now: int) -> list[int]:
    """When the key was published, and when it was removed, up to now."""
    return [at for at in (key.published_at, key.gone_at, key.revoked_at) if at is not None and at <= now] or [
        0
    ]


def _difference(what: str, inside: Any, outside: Any) -> dict[str, Any]:
    from service.doctor.catalogue import shown

    return {"what": what, "inside": shown(inside), "outside": shown(outside)}


def _seen() -> str:
    """The settings that this command found, and the user it ran as: an empty environment is valid, but rarely intended."""
    names, user = given_names(), _user()
    if not names:
        return (
            f"settings: none are set, read as {user}: every one has its default; "
            "to check a service, give its file: --env-file FILE"
        )
    return f"settings: {', '.join(names)}, read as {user}"


def _user() -> str:
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _notes(settings: Settings, ring: _RingFound | None, warnings: list[str], now: int) -> Iterator[str]:
    yield f"issuer: {settings.issuer or 'from the Host of each request'}"
    yield f"database: {'SQLite' if settings.database.is_sqlite else 'PostgreSQL'}"
    if settings.admin_token is None and settings.trusted_secret is None:
        yield _NOBODY_BEGINS
    for server in filter(find_spec, _WITHOUT_RAW_PATH):
        yield _RAW_PATH.format(server=server)
    if settings.managed:
        algs = yield from _managed_notes(settings, ring, warnings, now)
    else:
        algs = yield from _fixed_notes(settings)
    yield from _metadata_notes(_metadata(settings, settings.issuer or FALLBACK_ISSUER, algs))


def _metadata(settings: Settings, issuer: str, algs: Sequence[str]) -> dict[str, Any]:
    return build_metadata(
        issuer,
        algs=algs,
        scopes=settings.scopes,
        policies=settings.audiences,
        registration_is_open=settings.registration == "open",
        documents=settings.client_documents is not False,
    )


def _fixed_notes(settings: Settings) -> Generator[str, None, list[str]]:
    """Describe the keys of the environment. Returns the algorithms that discovery would name.

    Raises:
        KeyFault: if one of them does not work.
    """
    keyring = load_keyring(settings, make_key_file=False)
    if settings.key_file is not None and settings.key_file.key is None:
        yield "PYLON_OIDC_KEY_PATH: the file is missing; the first start creates it"
    for key in keyring.published:
        yield f"published key: {key.kid} ({key.alg})"
    if not keyring.can_mint and settings.key_file is None:
        yield _CANNOT_MINT.format(alg=settings.jwt_alg)
    if settings.key_file is not None and settings.key_file.key is None:  # its algorithm is already known
        return ["RS256", *(alg for alg in keyring.advertised_algs if alg not in ("RS256", "HS256"))]
    return keyring.advertised_algs


def _managed_notes(
    settings: Settings, found: _RingFound | None, warnings: list[str], now: int
) -> Generator[str, None, list[str]]:
    """Describe the ring, without changing it, and add warnings about it.

    Returns the algorithms that discovery would name.

    Raises:
        Unsealable: if it is not authentic, or one of its keys cannot be decrypted.
    """
    algs = list(settings.algs)
    if found is None:
        yield "the key ring cannot be read now; the first start creates a missing database"
    elif found.ring is None:
        yield "the key ring is empty; the first start creates it"
    else:
        algs = yield from _ring_notes(settings, found.ring, warnings, now)
    if settings.jwt_alg == "HS256" and settings.jwt_secret is None:
        yield _CANNOT_MINT.format(alg="HS256")
    return algs


def _ring_notes(
    settings: Settings, ring: Ring, warnings: list[str], now: int
) -> Generator[str, None, list[str]]:
    shown, store = published(ring.keys, now), open_store(settings)
    rings = ring_store(settings, store)
    try:
        for key in shown:
            if role(key, now) != "retired":  # only the public part of those is needed, as at a start
                rings.open(key, ring)
            yield f"published key: {key.kid} ({key.alg}), {role(key, now)}"
        warnings += ring_warnings(ring, rings, settings.margins, now=now)
        warnings += replica_warnings(ring, rings, settings.margins, now=now)
        if older := ring_memory(settings).warning(ring):
            warnings.append(older)
    except StoreUnavailable:
        pass  # the database became unavailable after the ring was read: nothing more is known
    finally:
        store.close()
    return in_order({key.alg for key in shown})


def _metadata_notes(metadata: Mapping[str, Any]) -> Iterator[str]:
    """The findings of Authlib's validators for the discovery document. Each member is checked separately, so all are reported.

    Spec: RFC 8414 §2, OpenID Connect Discovery 1.0 §3
    """
    from authlib.oidc.discovery import OpenIDProviderMetadata

    document = OpenIDProviderMetadata(metadata)
    for member in document.REGISTRY_KEYS:
        try:
            getattr(document, f"validate_{member}")()
        except ValueError as error:
            yield f"discovery: {error}"
