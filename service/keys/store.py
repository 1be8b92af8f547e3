"""The ring of signing keys in the database: one document, replaced by its next version.

Owns: the document's form, making and sealing keys, the race between writers.
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
    "parts of the ring of keys are missing in the database, or are not ours; restore it from a backup, or begin with a "
    "new database"
)
#: Writers that lose read again; nobody loses so often.
_ATTEMPTS: Final = 20
#: How often a replica says in the database what it keeps the ring by, and for how long that counts; s.
SAYS_EVERY_S: Final = 600
_SAID_COUNTS_S: Final = 2 * SAYS_EVERY_S
_MOST_SAID: Final = 8

Step = Callable[[Ring], KeyRecords]


@dataclass(frozen=True)
class RingStore:
    """The ring in a store.

    Attributes:
        store: where the document lives.
        sealing: seals and opens private parts, and authenticates the document.
        configured_algs: `PYLON_OIDC_ALGS`.
        has_clients: whether the environment names clients.
    """

    store: Store
    sealing: SealingKeys
    configured_algs: Sequence[str] = ("RS256",)
    has_clients: bool = False

    def load(self, *, now: int) -> Ring | None:
        """The ring as it is; None where there never was one. One query.

        Raises:
            Unsealable: when it was not written under an encryption key that is here.
        """
        ring, doubt = self.look(now=now)
        if doubt is not None:
            raise doubt
        return ring

    def look(self, *, now: int) -> tuple[Ring | None, Unsealable | None]:
        """The ring as it is found, to be shown or repaired, and why it is not to be trusted; None: it is."""
        return self.read(self.store.list(Kind.KEY_RING, now=now))

    def read(self, found: Sequence[Record]) -> tuple[Ring | None, Unsealable | None]:
        """The ring of these records, and why it is not to be trusted; see `look`."""
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
        """The algorithms that are kept: RS256 besides, while there are clients."""
        kept = set(self.configured_algs)
        if self.has_clients or self.store.list(Kind.CLIENT, now=now):
            kept.add("RS256")
        return in_order(kept)

    def keeping(self, margins: Margins, *, now: int) -> Keeping:
        """What this replica keeps the ring by."""
        kept = {*self.configured_algs, *(["RS256"] if self.has_clients else [])}
        return Keeping(tuple(in_order(kept)), margins.rotation_s, now)

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
        though_unproven: bool = False,
        anyway: bool = False,
    ) -> Ring:
        """Make the ring, and whatever it lacks by now; all of it once, however many processes do so at once.

        Args:
            margins: what keeps it safe.
            now: Unix s.
            step: what to do to its keys besides; it may be called again, with what another process has left.
            reschedule: whether another `rotation_s` than the ring was made by moves its times. At a start only:
                replicas that are being replaced differ in it, and would move them to and fro.
            though_shut: whether to go on without an encryption key. New keys are sealed under the first that is here.
            though_unproven: whether to go on with a ring that is not authentic. What is written is.
            anyway: whether to write it also where nothing changes.

        Raises:
            Unsealable: when the ring is not authentic, or a key that signs, or will, is sealed under an encryption key
                that is not here.
            Exception: what the step raises; nothing was changed then.
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
        """Put the ring in the place of the version before it, or at the beginning; whether nobody else was first."""
        if before is not None:
            return self.store.replace(
                Kind.KEY_RING, _document_id(before.version), self.document(ring), now=now
            )
        identity = Record(Kind.KEY_RING, _DATABASE, NEVER, body={"database_id": ring.database_id})
        return self.store.put(identity, self.document(ring), now=now)

    def document(self, ring: Ring) -> Record:
        """The ring as it is stored, authenticated."""
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
            if not unused.get(alg):  # a race that was lost is not a reason to make another key
                made = _new_key(alg)
                spare.setdefault(alg, []).append(made)
                unused[alg] = [made]
            key = unused[alg].pop()
            keys = added(keys, self.record(key, alg, key.thumbprint(), ring.database_id), now, margins)
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

    def sealed_otherwise(self, ring: Ring) -> dict[str, str]:
        """The kids whose private parts are sealed under another encryption key that is here, not the first; its name."""
        others = self.sealing.names[1:]
        return {
            key.kid: str(key.sealed["by"])
            for key in ring.keys
            if key.sealed is not None and key.sealed.get("by") in others
        }


def _stepped(ring: Ring, step: Step | None, margins: Margins, now: int, *, reschedule: bool) -> Ring:
    """The ring after a step, set right where a clock was ahead, and by another `rotation_s` where that is wanted."""
    keys = straightened(ring.keys if step is None else step(ring), now, margins)
    rotation_s = margins.rotation_s if reschedule else ring.rotation_s
    if rotation_s != ring.rotation_s:
        keys = rescheduled(keys, now, margins)
    return replace(ring, keys=keys, rotation_s=rotation_s)


def _new_key(alg: str) -> AsymmetricKey:
    """A fresh key whose kid no command takes for an option: one of 64 thumbprints begins with a hyphen."""
    while (key := generate_key(alg)).thumbprint().startswith("-"):
        pass
    return key


def _document_id(version: int) -> str:
    return hash_handle(f"key ring: version {version}")


def _said(kept_by: Sequence[Mapping[str, Any]]) -> tuple[Keeping, ...]:
    """What replicas noted. It is not authentic: numbers, and names that are known, or nothing."""
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
