"""What is decided before the port opens: settings, keys, store; every fault at once."""

from __future__ import annotations

import contextlib
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from service.clients import Clients
from service.handles import hash_handle
from service.keys.algorithms import RSA_ALGS
from service.keys.file import create_key_file
from service.keys.material import KeyFault
from service.keys.memory import FILE_NAME, RingMemory
from service.keys.rotation import DAY_S, Keeping, KeyRecord, Margins, Ring, imported
from service.keys.rotation import Keys as KeyRecords
from service.keys.running import ManagedKeys
from service.keys.sealing import Unsealable
from service.keys.signing import Keyring, Keys, PublicKey, build_keyring
from service.keys.store import RingStore, Step
from service.keys.timeline import overstaying
from service.settings import ConfigurationError, Fault, Reading, Settings, in_order, read_settings
from service.settings.cross_checks import no_minted_audience
from service.storage.interface import Kind, Store, StoreRefused, StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.urls import DatabaseUrl

_COPYING: Final = "a copy into the database is not finished; run the same pylon-oidc store copy again"


@dataclass(frozen=True)
class Prepared:
    """All that `create_app` needs, and what the operator should hear."""

    settings: Settings
    keyring: Keys
    store: SqlStore
    warnings: list[str]
    key_made: bool


def open_store(settings: Settings) -> SqlStore:
    """The store of the settings; opens no connection."""
    return open_database(settings.database, prepare=settings.prepared_statements)


def open_database(database: DatabaseUrl, *, prepare: bool = False) -> SqlStore:
    """The store of a URL; opens no connection. `prepare`: whether the server keeps statements prepared."""
    if database.is_sqlite:
        from service.storage.sqlite import SqliteDatabase

        return SqlStore(SqliteDatabase(database.path))
    from service.storage.postgres import PostgresDatabase  # libpq is not loaded for an embedded database

    return SqlStore(PostgresDatabase(database.url, prepare=prepare))


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
        margins: of the rotation of managed keys; by the settings when left out.

    Raises:
        ConfigurationError: with every fault.
    """
    reading = read_settings(environ)
    store, schema_faults, warnings = _checked_store(reading, migrate=True)
    warnings = [*warnings, *_newer_schema(None if warnings else store)]
    now = int(clock())
    faults = reading.faults + schema_faults + _client_faults(reading, store, now=now)
    if faults or store is None:
        raise ConfigurationError(in_order(faults + _sealing_faults(reading, store, now=now)))
    settings = reading.settings
    key_made = settings.key_file is not None and settings.key_file.key is None and not settings.managed
    keyring: Keys
    try:
        if settings.managed:
            keyring, key_warnings = load_managed_keys(settings, store, margins or settings.margins, clock)
            warnings = warnings + key_warnings
        else:
            keyring = load_keyring(settings, make_key_file=True)
    except KeyFault as error:
        raise ConfigurationError([Fault("PYLON_OIDC_KEY_PATH", str(error))]) from None
    except Unsealable as error:
        raise ConfigurationError([Fault("PYLON_KEY_ENCRYPTION_KEY", str(error))]) from None
    finally:
        store.close()
    warnings = [*reading.warnings, *warnings, *_open_files(settings)]
    return Prepared(settings, keyring, store, warnings, key_made)


def load_managed_keys(
    settings: Settings, store: Store, margins: Margins, clock: Callable[[], float]
) -> tuple[ManagedKeys, list[str]]:
    """The ring, made whole and read, and what is odd about it.

    Args:
        settings: say how it is sealed, and which algorithms are kept.
        store: where it is.
        margins: of a rotation.
        clock: Unix s.

    Raises:
        Unsealable: when it is not authentic, or a key of it cannot be opened.
    """
    rings = ring_store(settings, store)
    keys = managed_keys(settings, rings, margins, clock)
    now = int(clock())
    try:
        ring = keys.load()
    except StoreUnavailable:
        return keys, []  # told by the check of the store already
    told = [*ring_warnings(ring, rings, margins, now=now), *replica_warnings(ring, rings, margins, now=now)]
    return keys, [*told, *([keys.older] if keys.older else [])]


def ring_store(settings: Settings, store: Store) -> RingStore:
    """Where the ring of managed keys is."""
    return RingStore(store, settings.sealing, settings.algs, has_clients=bool(settings.clients))


def managed_keys(
    settings: Settings, rings: RingStore, margins: Margins, clock: Callable[[], float]
) -> ManagedKeys:
    """The keys of a worker, not read yet."""
    signs_here = settings.private_key or (settings.key_file and settings.key_file.key)
    environment = build_keyring(
        mint_alg=settings.jwt_alg,
        secret=settings.jwt_secret,
        public_key=None if signs_here else settings.public_key,
    )
    moving = _environments_key(settings, rings, margins, clock)
    memory = ring_memory(settings)
    return ManagedKeys(rings, margins, clock, environment, first_step=moving, memory=memory)


def ring_memory(settings: Settings) -> RingMemory:
    """What this host has seen of the ring."""
    return RingMemory(settings.data_dir / FILE_NAME)


def ring_warnings(ring: Ring, rings: RingStore, margins: Margins, *, now: int) -> Iterator[str]:
    """What an operator should hear of a ring."""
    in_use = Counter(rings.sealed_otherwise(ring).values())
    for number, name in enumerate(rings.sealing.names, 1):
        if count := in_use[name]:
            yield (
                f"PYLON_KEY_ENCRYPTION_KEY: {count} private {'key is' if count == 1 else 'keys are'} sealed under its key "
                f"{number} ({name}) and not under its first; run pylon-oidc keys reseal before you drop that one"
            )
    if rings.sealing.names:
        try:
            rings.check_sealing(ring, now=now)
        except Unsealable as error:
            yield f"PYLON_KEY_ENCRYPTION_KEY: {error}"
    kept = rings.algs(now=now)
    for key in overstaying(ring.keys, now, margins):
        if key.alg in kept:
            yield f"the rotation of the {key.alg} key {key.kid} is overdue; run pylon-oidc keys rotate"
        else:
            yield (
                f"{key.alg} is kept no more, and its key {key.kid} stays published; "
                f"run pylon-oidc keys revoke {key.kid} when no token of it is needed"
            )


def replica_warnings(ring: Ring, rings: RingStore, margins: Margins, *, now: int) -> Iterator[str]:
    """A word about each kind of replica that keeps the ring by other settings than this one."""
    for other in rings.differing(ring, margins, now=now):
        yield (
            f"replicas differ: one that was there {max(0, now - other.seen_at)} s ago {_kept_by(other)}, "
            f"this one {_kept_by(rings.keeping(margins, now=now))}; give all of them the same PYLON_OIDC_ALGS, "
            "PYLON_OIDC_CLIENTS and PYLON_OIDC_KEY_ROTATION_DAYS. One that was replaced is forgotten after 20 minutes"
        )


def _kept_by(keeping: Keeping) -> str:
    days = keeping.rotation_s / DAY_S
    return f"keeps {', '.join(keeping.algs)} and rotates " + (f"every {days:g} days" if days else "by hand")


def _environments_key(
    settings: Settings, rings: RingStore, margins: Margins, clock: Callable[[], float]
) -> Step | None:
    """A private key of the environment comes into the ring, under every name that it is published under."""
    private = settings.private_key or (settings.key_file.key if settings.key_file else None)
    if private is None:
        return None
    mint_alg = settings.jwt_alg if settings.jwt_alg in RSA_ALGS else "RS256"
    environment = build_keyring(mint_alg=mint_alg, private_key=private, public_key=settings.public_key)

    def taken_in(ring: Ring) -> KeyRecords:
        keys, now = ring.keys, int(clock())
        for public in environment.published:
            if any(_is_the_same(key, public) for key in keys):
                continue  # under this name, or under the one that it was imported by
            record = rings.record(private, public.alg, public.kid, ring.database_id)
            keys = imported(keys, record, now, margins, kept=public.alg in rings.algs(now=now))
        return keys

    return taken_in


def _is_the_same(key: KeyRecord, public: PublicKey) -> bool:
    return key.kid == public.kid or (key.alg == public.alg and key.jwk.get("n") == public.jwk["n"])


def inspect(environ: Mapping[str, str] | None = None, *, now: int) -> tuple[Settings, list[Fault], list[str]]:
    """The same checks without making anything: what `pylon-oidc check` shows."""
    reading = read_settings(environ)
    store, schema_faults, schema_warnings = _checked_store(reading, migrate=False)
    asked = None if schema_warnings else store  # one that cannot be reached is not asked again
    faults = reading.faults + schema_faults + _client_faults(reading, asked, now=now)
    faults = in_order(faults + _sealing_faults(reading, asked, now=now))
    of_clients = [] if asked is None else clients_without_a_page(reading.settings, asked, now=now)
    if not any(fault.setting in {"DATABASE_URL", "PYLON_DATA_DIR"} for fault in reading.faults):
        schema_warnings += [*_open_files(reading.settings), *_newer_schema(asked)]
    return reading.settings, faults, [*reading.warnings, *schema_warnings, *of_clients]


def _newer_schema(store: SqlStore | None) -> Iterator[str]:
    """A word about a database that a newer version has migrated; this one serves it all the same."""
    if store is None:
        return
    try:
        if store.schema_state() == "ahead":
            yield "the database's schema is ahead of this version: a newer one has migrated it; install that one here too"
    except StoreUnavailable:
        pass  # told by the check of the store already
    finally:
        store.close()


def load_keyring(settings: Settings, *, make_key_file: bool) -> Keyring:
    """Put the keys of the settings together and try them.

    Args:
        settings: the settings.
        make_key_file: whether a missing key file is made.

    Raises:
        KeyFault: when a key cannot be made or does not work.
    """
    private_key = settings.private_key
    if settings.key_file is not None:
        private_key = settings.key_file.key
        if private_key is None and make_key_file:
            private_key = create_key_file(settings.key_file.path)
    return build_keyring(
        mint_alg=settings.jwt_alg,
        secret=settings.jwt_secret,
        private_key=private_key,
        public_key=settings.public_key,
        kid=settings.jwks_kid,
    )


def _client_faults(reading: Reading, store: SqlStore | None, *, now: int) -> list[Fault]:
    """What clients need that were registered before; of those of the environment the settings tell."""
    settings, told = reading.settings, {fault.setting for fault in reading.faults}
    concerned = settings.lacks_minted_audience and not settings.clients
    if store is None or not concerned or told & {"PYLON_JWT_ALG", "PYLON_JWT_AUDIENCE"}:
        return []
    try:
        return [no_minted_audience(settings)] if store.list(Kind.CLIENT, now=now) else []
    except StoreUnavailable:
        return []  # told by the check of the store already
    finally:
        store.close()


def _sealing_faults(reading: Reading, store: SqlStore | None, *, now: int) -> list[Fault]:
    """The encryption keys that the ring needs and that are missing: told beside what else is wrong."""
    of_keys = {"PYLON_KEY_ENCRYPTION_KEY", "PYLON_OIDC_KEYS", "PYLON_DEV_MODE"}
    told = any(fault.setting in of_keys for fault in reading.faults)
    if store is None or told or not reading.settings.managed:
        return []
    rings = ring_store(reading.settings, store)
    try:
        if ring := rings.load(now=now):
            rings.check_sealing(ring, now=now)
    except Unsealable as error:
        return [Fault("PYLON_KEY_ENCRYPTION_KEY", str(error))]
    except StoreUnavailable:
        pass  # told by the check of the store already
    finally:
        store.close()
    return []


def _checked_store(reading: Reading, *, migrate: bool) -> tuple[SqlStore | None, list[Fault], list[str]]:
    settings = reading.settings
    if any(fault.setting in {"DATABASE_URL", "PYLON_DATA_DIR"} for fault in reading.faults):
        return None, [], []
    faults: list[Fault] = []
    warnings: list[str] = []
    store = open_store(settings)
    try:
        if settings.database.is_sqlite:
            faults += _sqlite_faults(settings, store, migrate=migrate and not reading.faults)
        elif (state := store.schema_state()) == "copying":
            faults.append(Fault("DATABASE_URL", _COPYING))
        elif state == "behind":
            what = "the schema is missing or behind this version; run: pylon-oidc migrate"
            faults.append(Fault("DATABASE_URL", what))
        elif refusal := store.write_refusal():
            if isinstance(refusal, StoreRefused):
                raise refusal
            warnings.append(
                f"DATABASE_URL: the database takes no writes now: {refusal.reason}; readyz says 503"
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
    """A word about a database of before that others than the service may read."""
    if not settings.database.is_sqlite:
        return
    path = settings.database.path
    with contextlib.suppress(OSError):  # told by the check of the store
        if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield f"{_database_setting(settings)}: others may read the database, its mode is {mode:04o}; run chmod 600 {path}"


def _database_setting(settings: Settings) -> str:
    return "DATABASE_URL" if settings.database_url else "PYLON_DATA_DIR"


def _sqlite_faults(settings: Settings, store: SqlStore, *, migrate: bool) -> Iterator[Fault]:
    name = _database_setting(settings)
    try:
        state = store.schema_state() if settings.database.path.exists() else "behind"
        is_behind = state == "behind"
        if state == "copying":
            yield Fault(name, _COPYING)
            return
        if is_behind and migrate:
            store.migrate()
        elif not is_behind and isinstance(refusal := store.write_refusal(), StoreRefused):
            yield Fault(name, f"{refusal.reason}; {refusal.remedy}")
    except OSError as error:
        yield Fault(
            name,
            f"the database cannot be made ({error.strerror}); write a folder that the service's user may write in",
        )
    except StoreUnavailable as error:
        yield Fault(
            name,
            f"the database cannot be opened ({error.reason}); move the file away, or give the service's user its rights",
        )


def clients_without_a_key(settings: Settings, store: SqlStore, *, now: int) -> list[str]:
    """A word about each client of the database whose ID tokens cannot be signed; those of the environment are a fault."""
    try:
        known = Clients([], store, minted_audience=settings.jwt_audience).list(now=now)
    except StoreUnavailable:
        return []  # told by the check of the store already
    finally:
        store.close()
    return [
        f"the client {client.client_id} asks for ID tokens by {client.id_token_signed_response_alg}, and no key is kept for it; "
        "add that to PYLON_OIDC_ALGS"
        for client in known
        if client.id_token_signed_response_alg not in settings.id_token_algs
    ]


def clients_without_a_page(settings: Settings, store: SqlStore, *, now: int) -> list[str]:
    """A word where the database has clients whose users nobody can sign in; those of the environment are a fault."""
    if settings.login_url is not None or settings.dev_mode or settings.clients:
        return []
    try:
        if not store.list(Kind.CLIENT, now=now):
            return []
    except StoreUnavailable:
        return []  # told by the check of the store already
    finally:
        store.close()
    return [
        "PYLON_LOGIN_URL is unset, and the database has clients: every sign-in to them is answered with 501; "
        "write the address of the app's sign-in page"
    ]


def shadowed_clients(settings: Settings, store: SqlStore, *, now: int) -> list[str]:
    """A word about each client of the environment that stands in the database too."""
    try:
        return [
            f"PYLON_OIDC_CLIENTS: the client {client.client_id} is in the database too; the environment wins"
            for client in settings.clients
            if store.get(Kind.CLIENT, hash_handle(client.client_id), now=now) is not None
        ]
    except StoreUnavailable:
        return []  # told by the check of the store already
    finally:
        store.close()
