"""What a user lets a client have without being asked again: one row for user, client and issuer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from service.handles import hash_handle, new_version
from service.storage.interface import NEVER, Change, Fitting, Kind, Record, Store


def consent_id(user_id: str, client_id: str, issuer: str) -> str:
    """The id of what a user let a client remember under an issuer."""
    return hash_handle("\n".join((user_id, client_id, issuer)))


def on_consent(user_id: str, client_id: str, issuer: str) -> Fitting:
    """What is granted unasked stands on what the user lets the client remember."""
    return Fitting(Kind.CONSENT, id_hash=consent_id(user_id, client_id, issuer))


def remembered_scope(store: Store, user_id: str, client_id: str, issuer: str, *, now: int) -> tuple[str, ...]:
    """What the user agreed to for this client before."""
    record = store.get(Kind.CONSENT, consent_id(user_id, client_id, issuer), now=now)
    return () if record is None or record.client_id != client_id else tuple(record.body["scope"])


def remembering(user_id: str, client_id: str, issuer: str, scope: Iterable[str]) -> Change:
    """Lets a client have this scope without asking again, and what was remembered before."""

    def widened(record: Record) -> Record:
        known = record.body["scope"]
        return replace(record, body={"scope": [*known, *(word for word in scope if word not in known)]})

    id_hash = consent_id(user_id, client_id, issuer)
    nothing = Record(
        Kind.CONSENT,
        id_hash,
        NEVER,
        user_id,
        body={"scope": []},
        client_id=client_id,
        version=new_version(),
    )
    return Change(Kind.CONSENT, id_hash, widened, new=nothing)
