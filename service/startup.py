"""Prepares the start before the port opens: settings, keys, store, and a report of all faults."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.clients import Clients
from service.keys.material import KeyFault
from service.keys.ring import Margins, Ring
from service.keys.sealing import Unsealable
from service.keys.signing import Keys
from service.keys.starting import RingOfBefore, load_keyring, load_managed_keys, ring_store
from service.policies.moving import run_of, with_left
from service.policies.values import CLIENT_CREDENTIALS
from service.records.clients import Client
from service.records.starts import Starts
from service.records.statuses import revocation
from service.settings import ConfigurationError, Fault, Reading, Settings, in_order, read_settings
from service.settings.cross_checks import no_minted_audience
from service.storage.interface import Remains, StoreRefused, StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.urls import DatabaseUrl
from service.subjects import Subjects

_COPYING: Final = "a copy into the database is not finished; run the same pylon-oidc store copy again"


@dataclass(frozen=True)
class Prepared:
    """Everything that `create_app` needs, and warnings for the operator."""

    settings: Settings
    keyring: Keys
    store: SqlStore
    warnings: list[str]
    key_made: bool


def open_store(settings: Settings) -> SqlStore:
    """The store of the settings. Opens no connection."""
    remains = revocation if settings.status_list else None
    return open_database(settings.database, prepare=settings.prepared_statements, remains=remains)


def open_database(
    database: DatabaseUrl, *, prepare: bool = False, remains: Remains | None = None
) -> SqlStore:
    """The store of a URL. Opens no connection.

    Args:
        database: its URL.
        prepare: whether to use prepared statements.
        remains: what is stored for sessions and grants that go.
    """
    if database.is_sqlite:
        from service.storage.sqlite import SqliteDatabase

        return SqlStore(SqliteDatabase(database.path), remains)
    from service.storage.postgres import PostgresDatabase  # libpq is not loaded for an embedded database

    return SqlStore(PostgresDatabase(database.url, prepare=prepare), remains)


def prepare(
    environ: Mapping[str, str] | None = None,
    *,
    clock: Callable[[], float],
    margins: Margins | None = None,
) -> Prepared:
    """Read the settings, load the keys, open and migrate the store, and leave no connection open.

    Args:
        environ: the environment; the process's own by default.
        clock: Unix s.
        margins: of the rotation of managed keys; by default those of the settings.

    Raises:
        ConfigurationError: with every fault.
    """
    reading = read_settings(environ)
    now = int(clock())
    store, schema_faults, warnings = _checked_store(reading, migrate=now)
    warnings = [*warnings, *_newer_schema(None if warnings else store)]
    faults = reading.faults + schema_faults + _client_faults(reading, store, now=now)
    if faults or store is None:
        raise ConfigurationError(in_order(faults + _ring_of(reading, store, now=now)[0]))
    settings = reading.settings
    key_made = settings.key_file is not None and settings.key_file.key is None and not settings.managed
    keyring: Keys
    try:
        if settings.managed:
            keyring, key_warnings = load_managed_keys(settings, store, margins or settings.margins, clock)
            warnings = warnings + key_warnings
        else:
            keyring = Keys(load_keyring(settings, make_key_file=True))
        settings = _noted(settings, store, now=now)
    except KeyFault as error:
        raise ConfigurationError([Fault("PYLON_OIDC_KEY_PATH", str(error))]) from None
    except Unsealable as error:
        raise ConfigurationError([Fault("PYLON_KEY_ENCRYPTION_KEY", str(error))]) from None
    finally:
        store.close()
    warnings = [*reading.warnings, *warnings, *_open_files(settings)]
    return Prepared(settings, keyring, store, warnings, key_made)


def _noted(settings: Settings, store: SqlStore, *, now: int) -> Settings:
    """Note how this process signs for each audience. Returns the settings with the older algorithms whose tokens still live."""
    if settings.policies is None:
        return settings
    starting = {
        name: run_of(each, now) for name, each in settings.policies.tables.items() if name is not None
    }
    try:
        runs = Starts(store).note(starting, now=now)
    except StoreUnavailable:
        return (
            settings  # reported by the check of the store; `keys migration` says that this start is not known
        )
    return replace(settings, policies=with_left(settings.policies, runs, now=now))


@dataclass(frozen=True)
class Inspected:
    """The results of `inspect`.

    Attributes:
        settings, faults, warnings: the same as at a start.
        ring: the ring of managed keys, or None if there is none.
        ring_is_known: whether the ring could be read.
    """

    settings: Settings
    faults: list[Fault]
    warnings: list[str]
    ring: Ring | None = None
    ring_is_known: bool = False


def inspect(environ: Mapping[str, str] | None = None, *, now: int) -> Inspected:
    """Run the same checks without creating anything, for `pylon-oidc check`."""
    reading = read_settings(environ)
    store, schema_faults, schema_warnings = _checked_store(reading, migrate=None)
    asked = None if schema_warnings else store  # a store that cannot be reached is not tried again
    faults = reading.faults + schema_faults + _client_faults(reading, asked, now=now)
    of_ring, known = _ring_of(reading, asked, now=now)
    faults = in_order(faults + of_ring)
    known_clients = [] if asked is None else _stored_clients(reading.settings, asked, now=now)
    of_clients = _without_a_page(reading.settings, known_clients)
    if not any(fault.setting in {"DATABASE_URL", "PYLON_DATA_DIR"} for fault in reading.faults):
        schema_warnings += [*_open_files(reading.settings), *_newer_schema(asked)]
    warnings = [*reading.warnings, *schema_warnings, *of_clients]
    return Inspected(reading.settings, faults, warnings, known and known[0], known is not None)


def _newer_schema(store: SqlStore | None) -> Iterator[str]:
    """A warning if a newer version has migrated the database. This version still works with it."""
    if store is None:
        return
    try:
        if store.schema_state() == "ahead":
            yield "the database's schema is ahead of this version: a newer version has migrated it; install that version here too"
    except StoreUnavailable:
        pass  # reported by the check of the store already
    finally:
        store.close()


def _client_faults(reading: Reading, store: SqlStore | None, *, now: int) -> list[Fault]:
    """Faults about settings that registered clients need. The settings check those of the environment."""
    settings, told = reading.settings, {fault.setting for fault in reading.faults}
    faults: list[Fault] = []
    if store is not None and not told & {"PYLON_POLICIES", "PYLON_OIDC_CLIENTS"}:
        faults += _clients_called_as_users(settings, store, now=now)
    concerned = settings.lacks_minted_audience and not settings.clients
    if store is None or not concerned or told & {"PYLON_JWT_ALG", "PYLON_JWT_AUDIENCE"}:
        return faults
    return [*faults, *([no_minted_audience(settings)] if _stored_clients(settings, store, now=now) else [])]


def _clients_called_as_users(settings: Settings, store: SqlStore, *, now: int) -> Iterator[Fault]:
    """Clients with the id of a user, which an API could mistake for the user. Checked only if clients get tokens of their own."""
    subjects = Subjects.of(settings, store)
    if not subjects.apart:
        return
    try:
        for number, client in enumerate(settings.clients, 1):
            if subjects.is_user(client.client_id, now=now):
                where = f"client {number} ({client.client_id}), client_id"
                yield Fault("PYLON_OIDC_CLIENTS", f"{where}: is the id of a user; write another")
        fixed = {client.client_id for client in settings.clients}
        for client in _stored_clients(settings, store, now=now):
            machine = CLIENT_CREDENTIALS in client.grant_types and client.client_id not in fixed
            if machine and subjects.is_user(client.client_id, now=now):
                what = f"the client {client.client_id} of the database has the id of a user"
                yield Fault(
                    "PYLON_POLICIES",
                    f"{what}, and may get tokens of its own; run pylon-oidc clients remove {client.client_id}",
                )
    except StoreUnavailable:
        pass  # reported by the check of the store already
    finally:
        store.close()


def _ring_of(
    reading: Reading, store: SqlStore | None, *, now: int
) -> tuple[list[Fault], tuple[Ring | None] | None]:
    """Faults about the key ring, such as missing encryption keys; and the ring, if it was read."""
    of_keys = {"PYLON_KEY_ENCRYPTION_KEY", "PYLON_OIDC_KEYS", "PYLON_DEV_MODE"}
    told = any(fault.setting in of_keys for fault in reading.faults)
    if store is None or told or not reading.settings.managed:
        return [], None
    rings = ring_store(reading.settings, store)
    try:
        if ring := rings.load(now=now):
            rings.check_sealing(ring, now=now)
    except Unsealable as error:
        return [Fault("PYLON_KEY_ENCRYPTION_KEY", str(error))], None
    except StoreUnavailable:
        return [], None  # reported by the check of the store already
    finally:
        store.close()
    return [], (ring,)


def _checked_store(
    reading: Reading, *, migrate: int | None
) -> tuple[SqlStore | None, list[Fault], list[str]]:
    """The store, its faults and warnings. If nothing is wrong, an embedded database is migrated at `migrate`, Unix s."""
    settings = reading.settings
    if any(fault.setting in {"DATABASE_URL", "PYLON_DATA_DIR"} for fault in reading.faults):
        return None, [], []
    faults: list[Fault] = []
    warnings: list[str] = []
    store = open_store(settings)
    try:
        if settings.database.is_sqlite:
            faults += _sqlite_faults(settings, store, warnings, migrate=None if reading.faults else migrate)
        elif (state := store.schema_state()) == "copying":
            faults.append(Fault("DATABASE_URL", _COPYING))
        elif state == "behind":
            what = "the schema is missing or behind this version; run: pylon-oidc migrate"
            faults.append(Fault("DATABASE_URL", what))
        elif refusal := store.write_refusal():
            if isinstance(refusal, StoreRefused):
                raise refusal
            warnings.append(
                f"DATABASE_URL: the database accepts no writes now: {refusal.reason}; readyz says 503"
            )
    except StoreRefused as error:
        faults.append(Fault("DATABASE_URL", f"{error.reason}; {error.remedy}"))
    except StoreUnavailable as error:
        warnings.append(
            f"DATABASE_URL: the database cannot be reached ({error.reason}); readyz says 503 until it can"
        )
    finally:
        store.close()
    return store, faults, warnings


def _open_files(settings: Settings) -> Iterator[str]:
    """A warning about an existing database that users other than the service may read."""
    if not settings.database.is_sqlite:
        return
    path = settings.database.path
    with contextlib.suppress(OSError):  # reported by the check of the store
        if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield f"{_database_setting(settings)}: others may read the database, its mode is {mode:04o}; run chmod 600 {path}"


def migrated(settings: Settings, store: SqlStore, *, now: int) -> list[str]:
    """Bring the schema up to date. Returns warnings about it.

    Raises:
        StoreUnavailable: if that is not possible.
    """
    ring = RingOfBefore(ring_store(settings, store), settings.margins, now)
    store.migrate(ring)
    return [] if ring.told is None else [ring.told]


def _database_setting(settings: Settings) -> str:
    return "DATABASE_URL" if settings.database_url else "PYLON_DATA_DIR"


def _sqlite_faults(
    settings: Settings, store: SqlStore, warnings: list[str], *, migrate: int | None
) -> Iterator[Fault]:
    name = _database_setting(settings)
    try:
        state = store.schema_state() if settings.database.path.exists() else "behind"
        is_behind = state == "behind"
        if state == "copying":
            yield Fault(name, _COPYING)
            return
        if is_behind and migrate is not None:
            warnings += migrated(settings, store, now=migrate)
        elif not is_behind and isinstance(refusal := store.write_refusal(), StoreRefused):
            yield Fault(name, f"{refusal.reason}; {refusal.remedy}")
    except OSError as error:
        yield Fault(
            name,
            f"the database cannot be created ({error.strerror}); write a folder that the service's user may write in",
        )
    except StoreUnavailable as error:
        yield Fault(
            name,
            f"the database cannot be opened ({error.reason}); move the file away, or give the service's user its rights",
        )


def client_warnings(settings: Settings, store: SqlStore, *, now: int) -> list[str]:
    """A warning for each client of the database that the settings hide or do not serve. The clients are read once."""
    known = _stored_clients(settings, store, now=now)
    stored = {client.client_id for client in known}
    shadowed = [
        f"PYLON_OIDC_CLIENTS: the client {client.client_id} is in the database too; the environment takes precedence"
        for client in settings.clients
        if client.client_id in stored
    ]
    without_a_key = [
        f"the client {client.client_id} asks for ID tokens signed with {client.id_token_signed_response_alg}, and there is no key for it; "
        "add that to PYLON_OIDC_ALGS"
        for client in known
        if client.id_token_signed_response_alg not in settings.id_token_algs
    ]
    return [*shadowed, *without_a_key, *_without_a_page(settings, known)]


def _without_a_page(settings: Settings, known: Sequence[Client]) -> list[str]:
    """A warning if the database has clients but there is no sign-in page. For clients of the environment, that is a fault."""
    if not known or settings.login_url is not None or settings.dev_mode or settings.clients:
        return []
    return [
        "PYLON_LOGIN_URL is unset, and the database has clients: every sign-in to them gets a 501; "
        "write the address of the app's sign-in page"
    ]


def _stored_clients(settings: Settings, store: SqlStore, *, now: int) -> list[Client]:
    """The clients of the database; none if it is unavailable, which the check of the store reports."""
    try:
        return Clients([], store, minted_audience=settings.jwt_audience).list(now=now)
    except StoreUnavailable:
        return []
    finally:
        store.close()
