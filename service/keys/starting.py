"""Prepares the keys at a start, according to the settings.

Owns: which keys of the environment sign, and which are added to the ring.
Never touches: the environment, the settings' names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

from joserfc.jwk import OctKey, RSAKey

from service.keys.algorithms import RSA_ALGS
from service.keys.file import create_key_file
from service.keys.memory import FILE_NAME, RingMemory
from service.keys.operations import of_before
from service.keys.ring import KeyRecord, KeyRecords, Margins, Ring
from service.keys.rotation import imported
from service.keys.running import ManagedKeys
from service.keys.sealing import REPAIR, SealingKeys
from service.keys.signing import Keyring, PublicKey, build_keyring
from service.keys.store import RingStore, Step
from service.keys.warnings import replica_warnings, ring_warnings
from service.storage.interface import Record, Store, StoreUnavailable

_TAKEN: Final = (
    "the migration authenticated the ring of keys with the encryption key; this happens once, because an earlier version "
    "did not"
)
_NOT_TAKEN: Final = (
    "the migration could not authenticate the ring of keys: PYLON_KEY_ENCRYPTION_KEY does not decrypt every key of it; "
    f"look at pylon-oidc keys list, then keep only proven keys: {REPAIR}"
)


class KeyFile(Protocol):
    """The file of a key: its path, and the key, or None if it does not exist yet."""

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def key(self) -> RSAKey | None: ...  # noqa: D102


class KeySettings(Protocol):
    """The settings about keys, by their names."""

    @property
    def jwt_alg(self) -> str: ...  # noqa: D102

    @property
    def jwt_secret(self) -> OctKey | None: ...  # noqa: D102

    @property
    def jwt_secret_previous(self) -> OctKey | None: ...  # noqa: D102

    @property
    def private_key(self) -> RSAKey | None: ...  # noqa: D102

    @property
    def public_key(self) -> RSAKey | None: ...  # noqa: D102

    @property
    def key_file(self) -> KeyFile | None: ...  # noqa: D102

    @property
    def jwks_kid(self) -> str | None: ...  # noqa: D102

    @property
    def sealing(self) -> SealingKeys: ...  # noqa: D102

    @property
    def algs(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def clients(self) -> Sequence[object]: ...  # noqa: D102

    @property
    def mint_algs(self) -> Collection[str]: ...  # noqa: D102

    @property
    def data_dir(self) -> Path: ...  # noqa: D102


def load_managed_keys(
    settings: KeySettings, store: Store, margins: Margins, clock: Callable[[], float]
) -> tuple[ManagedKeys, list[str]]:
    """Complete and read the ring. Returns the keys, and warnings.

    Args:
        settings: the encryption keys, and the algorithms in use.
        store: the store of the ring.
        margins: the margins of a rotation.
        clock: returns Unix s.

    Raises:
        Unsealable: if it is not authentic, or one of its keys cannot be decrypted.
    """
    rings = ring_store(settings, store)
    keys = managed_keys(settings, rings, margins, clock)
    now = int(clock())
    try:
        ring = keys.load()
    except StoreUnavailable:
        return keys, []  # the check of the store already reports it
    told = [*ring_warnings(ring, rings, margins, now=now), *replica_warnings(ring, rings, margins, now=now)]
    return keys, [*told, *([keys.older] if keys.older else [])]


def ring_store(settings: KeySettings, store: Store) -> RingStore:
    """The store of the ring of managed keys."""
    return RingStore(store, settings.sealing, settings.algs, has_clients=bool(settings.clients))


def managed_keys(
    settings: KeySettings, rings: RingStore, margins: Margins, clock: Callable[[], float]
) -> ManagedKeys:
    """The keys of a worker, before they are read."""
    signs_here = settings.private_key or (settings.key_file and settings.key_file.key)
    environment = build_keyring(
        mint_alg=settings.jwt_alg,
        secret=settings.jwt_secret,
        previous=settings.jwt_secret_previous,
        public_key=None if signs_here else settings.public_key,
    )
    moving = _environments_key(settings, rings, margins, clock)
    memory = ring_memory(settings)
    return ManagedKeys(rings, margins, clock, environment, first_step=moving, memory=memory)


class RingOfBefore:
    """Authenticates the ring of an earlier version during a migration: see `operations.of_before`.

    Args:
        rings: how it is sealed.
        margins: the margins of a rotation.
        now: Unix s.
    """

    def __init__(self, rings: RingStore, margins: Margins, now: int) -> None:
        self._rings = rings
        self._margins = margins
        self._now = now
        #: The warning about it; None if there was no such ring.
        self.told: str | None = None

    def __call__(self, found: Sequence[Record]) -> tuple[str, Record] | None:
        """Return which record of the ring to replace with what; None for none."""
        known, doubt = self._rings.read(found)
        if known is None or doubt is None:
            return None
        successor = of_before(self._rings, found, self._margins, now=self._now)
        self.told = _NOT_TAKEN if successor is None else _TAKEN
        return successor


def ring_memory(settings: KeySettings) -> RingMemory:
    """The memory of this host about the ring."""
    return RingMemory(settings.data_dir / FILE_NAME)


def _environments_key(
    settings: KeySettings, rings: RingStore, margins: Margins, clock: Callable[[], float]
) -> Step | None:
    """Add a private key of the environment to the ring, under every kid that it is published with."""
    private = settings.private_key or (settings.key_file.key if settings.key_file else None)
    if private is None:
        return None
    mint_alg = settings.jwt_alg if settings.jwt_alg in RSA_ALGS else "RS256"
    environment = build_keyring(
        mint_alg=mint_alg, private_key=private, public_key=settings.public_key, algs=settings.mint_algs
    )

    def taken_in(ring: Ring) -> KeyRecords:
        keys, now = ring.keys, int(clock())
        for public in environment.published:
            if any(_is_the_same(key, public) for key in keys):
                continue  # under this kid, or the one that it was imported with
            record = rings.record(private, public.alg, public.kid, ring.database_id)
            keys = imported(keys, record, now, margins, kept=public.alg in rings.algs(now=now))
        return keys

    return taken_in


def _is_the_same(key: KeyRecord, public: PublicKey) -> bool:
    return key.kid == public.kid or (key.alg == public.alg and key.jwk.get("n") == public.jwk["n"])


def load_keyring(settings: KeySettings, *, make_key_file: bool) -> Keyring:
    """Build the keyring of the settings and test it.

    Args:
        settings: the settings.
        make_key_file: whether to create a missing key file.

    Raises:
        KeyFault: if a key cannot be created or does not work.
    """
    private_key = settings.private_key
    if settings.key_file is not None:
        private_key = settings.key_file.key
        if private_key is None and make_key_file:
            private_key = create_key_file(settings.key_file.path)
    return build_keyring(
        mint_alg=settings.jwt_alg,
        secret=settings.jwt_secret,
        previous=settings.jwt_secret_previous,
        private_key=private_key,
        public_key=settings.public_key,
        kid=settings.jwks_kid,
        algs=settings.mint_algs,
    )
