"""The ring of signing keys in the database: one document, replaced by its next version.

Owns: the document's form, making and sealing keys, the race between writers.
Never touches: when keys change (`protocol.key_ring`), signing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from service.key_material import (
    ASYMMETRIC_ALGS,
    AsymmetricKey,
    KeyFault,
    generate_key,
    load_private_bytes,
    private_bytes,
    public_jwk,
)
from service.protocol.handles import hash_handle, new_id
from service.protocol.key_ring import (
    Keeping,
    KeyRecord,
    Keys,
    Margins,
    Ring,
    added,
    kept_long_enough,
    needs,
    rescheduled,
    role,
    straightened,
    without_private_parts_of_gone,
)
from service.protocol.sealed_keys import Binding, SealingKeys, Unsealable
from service.storage.interface import NEVER, Contended, Kind, Record, Store

_DATABASE: Final = hash_handle("key ring: database")
#: Writers that lose read again; nobody loses so often.
_ATTEMPTS: Final = 20
#: How often a replica says in the database what it keeps the ring by, and for how long that counts; s.
SAYS_EVERY_S: Final = 600
_SAID_COUNTS_S: Final = 2 * SAYS_EVERY_S
_MOST_SAID: Final = 8

Step = Callable[[Ring], Keys]


@dataclass(frozen=True)
class RingStore:
    """The ring in a store.

    Attributes:
        store: where the document lives.
        sealing: seals and opens private parts.
        configured_algs: `PYLON_OIDC_ALGS`.
        has_clients: whether the environment names clients.
    """

    store: Store
    sealing: SealingKeys
    configured_algs: Sequence[str] = ("RS256",)
    has_clients: bool = False

    def load(self, *, now: int) -> Ring | None:
        """The ring as it is; None where there never was one. One query."""
        records = {record.id_hash: record for record in self.store.list(Kind.KEY_RING, now=now)}
        identity = records.pop(_DATABASE, None)
        if identity is None or not records:
            return None
        (document,) = records.values()
        return replace(
            _ring(document, str(identity.body["database_id"])),
            kept_by=_said(identity.body.get("kept_by", [])),
        )

    def algs(self, *, now: int) -> list[str]:
        """The algorithms that are kept: RS256 besides, while there are clients."""
        kept = set(self.configured_algs)
        if self.has_clients or self.store.list(Kind.CLIENT, now=now):
            kept.add("RS256")
        return [alg for alg in ASYMMETRIC_ALGS if alg in kept]

    def keeping(self, margins: Margins, *, now: int) -> Keeping:
        """What this replica keeps the ring by."""
        kept = {*self.configured_algs, *(["RS256"] if self.has_clients else [])}
        return Keeping(tuple(alg for alg in ASYMMETRIC_ALGS if alg in kept), margins.rotation_s, now)

    def say(self, ring: Ring, margins: Margins, *, now: int) -> None:
        """Say in the database what this replica keeps the ring by, where that was not said lately."""
        mine = self.keeping(margins, now=now)
        if any(_is_like(said, mine) and abs(now - said.seen_at) < SAYS_EVERY_S for said in ring.kept_by):
            return

        def with_mine(identity: Record) -> Record:
            others = [
                said
                for said in _said(identity.body.get("kept_by", []))
                if not _is_like(said, mine) and _counts(said, now)
            ]
            said = [asdict(each) for each in (*others, mine)[-_MOST_SAID:]]
            return replace(identity, body={**identity.body, "kept_by": said})

        self.store.change(Kind.KEY_RING, _DATABASE, with_mine, now=now)

    def differing(self, ring: Ring, margins: Margins, *, now: int) -> list[Keeping]:
        """What other replicas keep the ring by that were seen lately, where it is not what this one does."""
        mine = self.keeping(margins, now=now)
        others = [said for said in ring.kept_by if _counts(said, now) and not _is_like(said, mine)]
        if others and self.store.list(Kind.CLIENT, now=now):  # then all of them keep RS256
            of_all = {*mine.algs, "RS256"}
            others = [
                said
                for said in others
                if (said.rotation_s, {*said.algs, "RS256"}) != (mine.rotation_s, of_all)
            ]
        return others

    def ensure(
        self,
        margins: Margins,
        *,
        now: int,
        step: Step | None = None,
        reschedule: bool = False,
        though_shut: bool = False,
    ) -> Ring:
        """Make the ring, and whatever it lacks by now; all of it once, however many processes do so at once.

        Args:
            margins: what keeps it safe.
            now: Unix s.
            step: what to do to its keys besides; it may be called again, with what another process has left.
            reschedule: whether another `rotation_s` than the ring was made by moves its times. At a start only:
                replicas that are being replaced differ in it, and would move them to and fro.
            though_shut: whether to go on where an encryption key is missing. New keys are sealed under the first that
                is here: nobody else may be able to open them.

        Raises:
            Unsealable: when a key that signs, or will, is sealed under an encryption key that is not here.
            Exception: what the step raises; nothing was changed then.
        """
        algs = self.algs(now=now)
        spare: dict[str, list[AsymmetricKey]] = {}
        for _ in range(_ATTEMPTS):
            known = self.load(now=now)
            ring = known or Ring(0, new_id(), (), margins.rotation_s)
            if not though_shut:
                self.check_sealing(ring, now=now)
            keys = straightened(ring.keys if step is None else step(ring), now, margins)
            rotation_s = margins.rotation_s if reschedule else ring.rotation_s
            margins = replace(margins, rotation_s=rotation_s)
            if rotation_s != ring.rotation_s:
                keys = rescheduled(keys, now, margins)
            keys = self._completed(keys, ring.database_id, algs, spare, margins, now=now)
            if known is not None and (keys, rotation_s) == (ring.keys, ring.rotation_s):
                return ring
            wanted = replace(ring, version=ring.version + 1, keys=keys, rotation_s=rotation_s)
            if self._write(wanted, known, now=now):
                return wanted
        raise Contended

    def _write(self, ring: Ring, before: Ring | None, *, now: int) -> bool:
        """Put the ring in the place of the version before it, or at the beginning; whether nobody else was first."""
        if before is not None:
            return self.store.replace(Kind.KEY_RING, _document_id(before.version), _document(ring), now=now)
        identity = Record(Kind.KEY_RING, _DATABASE, NEVER, body={"database_id": ring.database_id})
        return self.store.put(identity, _document(ring), now=now)

    def _completed(
        self,
        keys: Keys,
        database_id: str,
        algs: Sequence[str],
        spare: dict[str, list[AsymmetricKey]],
        margins: Margins,
        *,
        now: int,
    ) -> Keys:
        unused = {alg: list(made) for alg, made in spare.items()}
        while missing := needs(keys, algs, now, margins):
            alg = missing[0]
            if not unused.get(alg):  # a race that was lost is not a reason to make another key
                made = _new_key(alg)
                spare.setdefault(alg, []).append(made)
                unused[alg] = [made]
            key = unused[alg].pop()
            keys = added(keys, self.record(key, alg, key.thumbprint(), database_id), now, margins)
        return without_private_parts_of_gone(kept_long_enough(keys, now, margins), now)

    def record(self, key: AsymmetricKey, alg: str, kid: str, database_id: str) -> KeyRecord:
        """A key as the ring keeps it, its private part sealed; it has no times yet."""
        sealed = self.sealing.seal(private_bytes(key), Binding(kid, alg, database_id))
        return KeyRecord(kid, alg, public_jwk(key, kid=kid, alg=alg), sealed, published_at=0)

    def check_sealing(self, ring: Ring, *, now: int) -> None:
        """Check that every encryption key is here which a key is sealed under that signs, or will.

        Raises:
            Unsealable: when one is missing; it names all that are.
        """
        self.sealing.check_here(
            {
                key.kid: key.sealed
                for key in ring.keys
                if key.sealed is not None and role(key, now) in {"active", "next"}
            }
        )

    def open(self, key: KeyRecord, ring: Ring) -> AsymmetricKey:
        """The private key of a record.

        Raises:
            Unsealable: when it cannot be opened, or is not the key that is published.
        """
        if key.sealed is None:
            raise Unsealable(f"the private part of the key {key.kid} is gone")
        data = self.sealing.unseal(key.sealed, Binding(key.kid, key.alg, ring.database_id))
        try:
            private = load_private_bytes(data, key.alg)
        except KeyFault as error:
            raise Unsealable(f"what is sealed as the key {key.kid} {error}") from None
        if public_jwk(private, kid=key.kid, alg=key.alg) != key.jwk:
            raise Unsealable(f"the key {key.kid} is published as another one; restore it, or revoke it")
        return private

    def reseal(self, margins: Margins, *, now: int) -> tuple[Ring, int]:
        """Seal every private part under the first encryption key; the ring, and how many it were.

        What will not sign again, and whose encryption key is gone already, stays as it is until it goes.

        Raises:
            Unsealable: when one cannot be opened that signs, or will.
        """
        count = 0

        def sealed_again(ring: Ring) -> Keys:
            nonlocal count
            count = 0
            keys, others = [], self.sealed_otherwise(ring)
            for key in ring.keys:
                if key.sealed is not None and key.kid in others:
                    binding = Binding(key.kid, key.alg, ring.database_id)
                    again = self.sealing.seal(self.sealing.unseal(key.sealed, binding), binding)
                    keys.append(replace(key, sealed=again))
                    count += 1
                else:
                    keys.append(key)
            return tuple(keys)

        return self.ensure(margins, now=now, step=sealed_again), count

    def sealed_otherwise(self, ring: Ring) -> dict[str, str]:
        """The kids whose private parts are sealed under another encryption key that is here, not the first; its name."""
        others = self.sealing.names[1:]
        return {
            key.kid: str(key.sealed["by"])
            for key in ring.keys
            if key.sealed is not None and key.sealed.get("by") in others
        }


def _new_key(alg: str) -> AsymmetricKey:
    """A fresh key whose kid no command takes for an option: one of 64 thumbprints begins with a hyphen."""
    while (key := generate_key(alg)).thumbprint().startswith("-"):
        pass
    return key


def _document_id(version: int) -> str:
    return hash_handle(f"key ring: version {version}")


def _document(ring: Ring) -> Record:
    body: dict[str, Any] = {
        "version": ring.version,
        "rotation_s": ring.rotation_s,
        "keys": [asdict(key) for key in ring.keys],
    }
    return Record(Kind.KEY_RING, _document_id(ring.version), NEVER, body=body)


def _said(kept_by: Sequence[Mapping[str, Any]]) -> tuple[Keeping, ...]:
    return tuple(Keeping(tuple(said["algs"]), said["rotation_s"], said["seen_at"]) for said in kept_by)


def _is_like(one: Keeping, other: Keeping) -> bool:
    return (one.algs, one.rotation_s) == (other.algs, other.rotation_s)


def _counts(said: Keeping, now: int) -> bool:
    return abs(now - said.seen_at) < _SAID_COUNTS_S


def _ring(document: Record, database_id: str) -> Ring:
    body = document.body
    keys = tuple(KeyRecord(**key) for key in body["keys"])
    return Ring(body["version"], database_id, keys, body["rotation_s"])
