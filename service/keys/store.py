"""Stores the ring of signing keys in the database: one document, which each change replaces with a new version.

Owns: the document's format, creating and sealing keys, races between writers.
Never touches: when keys change (`rotation`), signing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from service.handles import hash_handle, new_id
from service.keys.algorithms import in_order
from service.keys.material import (
    AsymmetricKey,
    KeyFault,
    generate_key,
    load_private_bytes,
    private_bytes,
    public_jwk,
)
from service.keys.ring import Keeping, KeyRecord, KeyRecords, Margins, Ring, role
from service.keys.rotation import (
    added,
    kept_long_enough,
    needs,
    rescheduled,
    straightened,
    without_private_parts_of_gone,
)
from service.keys.sealing import Binding, NotAuthentic, SealingKeys, Unsealable
from service.storage.interface import NEVER, Contended, Kind, Record, Store

_DATABASE: Final = hash_handle("key ring: database")
_IN_PARTS: Final = (
    "parts of the ring of keys are missing in the database, or are not ours; restore it from a backup, or start with a "
    "new database"
)
#: How often a writer that loses tries again; this is always enough.
_ATTEMPTS: Final = 20
#: How often a replica records its settings for the ring in the database, and how long that counts, in s.
SAYS_EVERY_S: Final = 600
_SAID_COUNTS_S: Final = 2 * SAYS_EVERY_S
_MOST_SAID: Final = 8

Step = Callable[[Ring], KeyRecords]


@dataclass(frozen=True)
class RingStore:
    """The ring in a store.

    Attributes:
        store: has the document.
        sealing: encrypts and decrypts private keys, and authenticates the document.
        configured_algs: `PYLON_OIDC_ALGS`.
        has_clients: whether there are clients in the environment.
    """

    store: Store
    sealing: SealingKeys
    configured_algs: Sequence[str] = ("RS256",)
    has_clients: bool = False

    def load(self, *, now: int) -> Ring | None:
        """Read the ring; None if there never was one. This is one query.

        Raises:
            Unsealable: if it was not written with an encryption key that is here.
        """
        ring, doubt = self.look(now=now)
        if doubt is not None:
            raise doubt
        return ring

    def look(self, *, now: int) -> tuple[Ring | None, Unsealable | None]:
        """Read the ring to show or repair it. Also returns why it cannot be trusted; None if it can."""
        return self.read(self.store.list(Kind.KEY_RING, now=now))

    def read(self, found: Sequence[Record]) -> tuple[Ring | None, Unsealable | None]:
        """The ring of these records, and why it cannot be trusted; see `look`."""
        records = {record.id_hash: record for record in found}
        if not records:
            return None, None
        try:
            identity = records.pop(_DATABASE).body
            database_id, kept_by = str(identity["database_id"]), _said(identity.get("kept_by", []))
            (document,) = records.values()
            body = dict(document.body)
            macs, ring = body.pop("macs", None), replace(_ring(body, database_id), kept_by=kept_by)
        except (AttributeError, KeyError, TypeError, ValueError):
            document, ring = None, None
        if document is None or ring is None or document.id_hash != _document_id(ring.version):
            return None, NotAuthentic(_IN_PARTS)
        try:
            self.sealing.authenticate(body, database_id, macs)
        except Unsealable as doubt:
            return ring, doubt
        return ring, None

    def algs(self, *, now: int) -> list[str]:
        """The algorithms in use: also RS256, while there are clients."""
        kept = set(self.configured_algs)
        if self.has_clients or self.store.list(Kind.CLIENT, now=now):
            kept.add("RS256")
        return in_order(kept)

    def keeping(self, margins: Margins, *, now: int) -> Keeping:
        """The settings of this replica for the ring."""
        kept = {*self.configured_algs, *(["RS256"] if self.has_clients else [])}
        return Keeping(tuple(in_order(kept)), margins.rotation_s, now)

    def say(self, ring: Ring, margins: Margins, *, now: int) -> None:
        """Record this replica's settings for the ring in the database, unless that was done recently."""
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
        """The settings of other replicas that were recently seen, if they differ from this one's."""
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
        though_unproven: bool = False,
        anyway: bool = False,
    ) -> Ring:
        """Create the ring and any missing keys. Each is created only once, however many processes do this at the same time.

        Args:
            margins: the margins of a safe rotation.
            now: Unix s.
            step: an additional change of the keys. It may be called again, with another process's result.
            reschedule: whether a new `rotation_s` changes the times. Only at a start: during a rolling update the
                replicas have different values, and would change the times back and forth.
            though_shut: whether to continue without an encryption key. New keys are sealed with the first one that is here.
            though_unproven: whether to continue with a ring that is not authentic. The written ring is authentic.
            anyway: whether to write it even if nothing changes.

        Raises:
            Unsealable: if the ring is not authentic, or a key that signs, or will sign, is sealed under an encryption
                key that is not here.
            Exception: any exception of the step; nothing was changed then.
        """
        algs = self.algs(now=now)
        spare: dict[str, list[AsymmetricKey]] = {}
        for _ in range(_ATTEMPTS):
            known, doubt = self.look(now=now)
            if doubt is not None and not (though_unproven and known):
                raise doubt
            ring = known or Ring(0, new_id(), (), margins.rotation_s)
            if not though_shut:
                self.check_sealing(ring, now=now)
            stepped = _stepped(ring, step, margins, now, reschedule=reschedule)
            wanted = replace(stepped, keys=self._completed(stepped, algs, spare, margins, now=now))
            if known is not None and not anyway and wanted == ring:
                return ring
            wanted = replace(wanted, version=ring.version + 1)
            if self._write(wanted, known, now=now):
                return wanted
        raise Contended

    def _write(self, ring: Ring, before: Ring | None, *, now: int) -> bool:
        """Replace the earlier version of the ring, or store the first one. Returns False if another writer was first."""
        if before is not None:
            return self.store.replace(
                Kind.KEY_RING, _document_id(before.version), self.document(ring), now=now
            )
        identity = Record(Kind.KEY_RING, _DATABASE, NEVER, body={"database_id": ring.database_id})
        return self.store.put(identity, self.document(ring), now=now)

    def document(self, ring: Ring) -> Record:
        """The ring as a record, authenticated."""
        body = {
            "version": ring.version,
            "rotation_s": ring.rotation_s,
            "keys": [asdict(key) for key in ring.keys],
        }
        body["macs"] = self.sealing.macs(body, ring.database_id)
        return Record(Kind.KEY_RING, _document_id(ring.version), NEVER, body=body)

    def _completed(
        self,
        ring: Ring,
        algs: Sequence[str],
        spare: dict[str, list[AsymmetricKey]],
        margins: Margins,
        *,
        now: int,
    ) -> KeyRecords:
        margins = replace(margins, rotation_s=ring.rotation_s)
        keys, unused = ring.keys, {alg: list(made) for alg, made in spare.items()}
        while missing := needs(keys, algs, now, margins):
            alg = missing[0]
            if not unused.get(alg):  # after losing a race, use the key that was already created
                made = _new_key(alg)
                spare.setdefault(alg, []).append(made)
                unused[alg] = [made]
            key = unused[alg].pop()
            keys = added(keys, self.record(key, alg, key.thumbprint(), ring.database_id), now, margins)
        return without_private_parts_of_gone(kept_long_enough(keys, now, margins), now)

    def record(self, key: AsymmetricKey, alg: str, kid: str, database_id: str) -> KeyRecord:
        """A key as a record of the ring, with its private part sealed, and without times."""
        sealed = self.sealing.seal(private_bytes(key), Binding(kid, alg, database_id))
        return KeyRecord(kid, alg, public_jwk(key, kid=kid, alg=alg), sealed, published_at=0)

    def check_sealing(self, ring: Ring, *, now: int) -> None:
        """Check that the encryption keys of all keys that sign, or will sign, are here.

        Raises:
            Unsealable: if any is missing; it names all of them.
        """
        self.sealing.check_here(
            {
                key.kid: key.sealed
                for key in ring.keys
                if key.sealed is not None and role(key, now) in {"active", "next"}
            }
        )

    def open(self, key: KeyRecord, ring: Ring) -> AsymmetricKey:
        """Decrypt the private key of a record.

        Raises:
            Unsealable: if it cannot be decrypted, or does not match the published key.
        """
        if key.sealed is None:
            raise Unsealable(f"the private part of the key {key.kid} is gone")
        data = self.sealing.unseal(key.sealed, Binding(key.kid, key.alg, ring.database_id))
        try:
            private = load_private_bytes(data, key.alg)
        except KeyFault as error:
            raise Unsealable(f"the sealed key {key.kid} {error}") from None
        if public_jwk(private, kid=key.kid, alg=key.alg) != key.jwk:
            raise Unsealable(f"the key {key.kid} is published as another one; restore it, or revoke it")
        return private

    def sealed_otherwise(self, ring: Ring) -> dict[str, str]:
        """The kids whose private keys are sealed under an encryption key other than the first, with the name of that key."""
        others = self.sealing.names[1:]
        return {
            key.kid: str(key.sealed["by"])
            for key in ring.keys
            if key.sealed is not None and key.sealed.get("by") in others
        }


def _stepped(ring: Ring, step: Step | None, margins: Margins, now: int, *, reschedule: bool) -> Ring:
    """The ring after a step, with the times of a fast clock corrected, and with a new `rotation_s` if wanted."""
    keys = straightened(ring.keys if step is None else step(ring), now, margins)
    rotation_s = margins.rotation_s if reschedule else ring.rotation_s
    if rotation_s != ring.rotation_s:
        keys = rescheduled(keys, now, margins)
    return replace(ring, keys=keys, rotation_s=rotation_s)


def _new_key(alg: str) -> AsymmetricKey:
    """Create a key whose kid cannot be mistaken for an option: one in 64 thumbprints starts with a hyphen."""
    while (key := generate_key(alg)).thumbprint().startswith("-"):
        pass
    return key


def _document_id(version: int) -> str:
    return hash_handle(f"key ring: version {version}")


def _said(kept_by: Sequence[Mapping[str, Any]]) -> tuple[Keeping, ...]:
    """Parse what replicas recorded. It is not authenticated, so only numbers and known names are accepted."""
    return tuple(
        Keeping(
            tuple(in_order(set(said["algs"]))),
            int(said["rotation_s"]),
            int(said["seen_at"]),
        )
        for said in kept_by
    )


def _is_like(one: Keeping, other: Keeping) -> bool:
    return (one.algs, one.rotation_s) == (other.algs, other.rotation_s)


def _counts(said: Keeping, now: int) -> bool:
    return abs(now - said.seen_at) < _SAID_COUNTS_S


def _ring(body: Mapping[str, Any], database_id: str) -> Ring:
    keys = tuple(KeyRecord(**key) for key in body["keys"])
    return Ring(body["version"], database_id, keys, body["rotation_s"])
