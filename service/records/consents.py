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


def remembered_scope(
    store: Store, user_id: str, client_id: str, issuer: str, identity: str | None, *, now: int
) -> tuple[str, ...]:
    """The scope that the user agreed to earlier for this client, as long as a stranger is recognised as the same.

    Args:
        store: the store.
        user_id, client_id, issuer: whose consent for whom.
        identity: what a stranger is recognised by now; None for a client of the operator's.
        now: Unix s.
    """
    record = store.get(Kind.CONSENT, consent_id(user_id, client_id, issuer), now=now)
    if record is None or record.client_id != client_id or record.body.get("identity") != identity:
        return ()
    return tuple(record.body["scope"])


def remembering(
    user_id: str, client_id: str, issuer: str, identity: str | None, scope: Iterable[str]
) -> Change:
    """The change that adds this scope to what is remembered. What was agreed for another identity is forgotten."""
    named = {} if identity is None else {"identity": identity}

    def widened(record: Record) -> Record:
        known = record.body["scope"] if record.body.get("identity") == identity else []
        words = [*known, *(word for word in scope if word not in known)]
        return replace(record, body={"scope": words, **named})

    id_hash = consent_id(user_id, client_id, issuer)
    nothing = Record(
        Kind.CONSENT,
        id_hash,
        NEVER,
        user_id,
        body={"scope": [], **named},
        client_id=client_id,
        version=new_version(),
    )
    return Change(Kind.CONSENT, id_hash, widened, new=nothing)
