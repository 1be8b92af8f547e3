"""Remembered consents: one row for each user, client and issuer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from service.handles import hash_handle, new_version
from service.storage.interface import NEVER, Change, Fitting, Kind, Record, Store


def consent_id(user_id: str, client_id: str, issuer: str) -> str:
    """The id of a user's consent for a client and issuer."""
    return hash_handle("\n".join((user_id, client_id, issuer)))


def on_consent(user_id: str, client_id: str, issuer: str) -> Fitting:
    """A grant that needed no question depends on the remembered consent."""
    return Fitting(Kind.CONSENT, id_hash=consent_id(user_id, client_id, issuer))


def remembered_scope(store: Store, user_id: str, client_id: str, issuer: str, *, now: int) -> tuple[str, ...]:
    """The scope that the user agreed to earlier for this client."""
    record = store.get(Kind.CONSENT, consent_id(user_id, client_id, issuer), now=now)
    return () if record is None or record.client_id != client_id else tuple(record.body["scope"])


def remembering(user_id: str, client_id: str, issuer: str, scope: Iterable[str]) -> Change:
    """The change that adds this scope to what is remembered."""

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
