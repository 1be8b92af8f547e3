"""The clients that a session has signed its user in to, known until the session ends, even after their grants."""

from __future__ import annotations

from service.handles import hash_handle
from service.records.sessions import MAX_SESSION_S, Session
from service.storage.interface import Change, Kind, Record


def visited(session: Session, client_id: str, issuer: str) -> Change:
    """Record that the session signs its user in to a client under an issuer. If that is recorded, nothing changes."""
    id_hash = hash_handle(f"{session.sid}\n{client_id}\n{issuer}")
    visit = Record(
        Kind.VISIT,
        id_hash,
        session.created_at + MAX_SESSION_S,
        session.user_id,
        session_id=session.sid,
        client_id=client_id,
        body={"issuer": issuer},
    )
    return Change(Kind.VISIT, id_hash, lambda known: known, new=visit)
