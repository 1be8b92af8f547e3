"""The clients that got tokens by a session, known until the session ends, even after their grants.

A client that wants logout tokens is noted when it exchanges its code. Any other is noted when the code is created, in
case it gets an address for logout tokens later: an exchange then stores nothing more than its grant.
"""

from __future__ import annotations

from service.handles import hash_handle
from service.records.clients import Client
from service.records.grants import Grant
from service.records.sessions import MAX_SESSION_S
from service.storage.interface import Change, Kind, Record


def visit(subject: str, sid: str, client_id: str, issuer: str, *, at: int) -> Record:
    """The record that a session has signed its user in to a client under an issuer, at that time (Unix s)."""
    return Record(
        Kind.VISIT,
        hash_handle(f"{sid}\n{client_id}\n{issuer}"),
        at + MAX_SESSION_S,  # not before the session has ended
        subject,
        session_id=sid,
        client_id=client_id,
        body={"issuer": issuer},
    )


def _visit(grant: Grant) -> Record:
    return visit(grant.subject, grant.sid, grant.client_id, grant.issuer, at=grant.created_at)


def visited_at_code(grant: Grant, client: Client) -> tuple[Change, ...]:
    """What to store with a new code. If the visit is recorded already, nothing changes."""
    if client.backchannel_logout_uri is not None:
        return ()
    new = _visit(grant)
    return (Change(Kind.VISIT, new.id_hash, lambda known: known, new=new),)


def visited_at_exchange(grant: Grant, client: Client) -> Record | None:
    """What to store with the first tokens of a grant, unless it is recorded already; None: nothing.

    Spec: OpenID Connect Back-Channel Logout 1.0 §2.4: logout tokens go to clients that the user has signed in to
    """
    return None if client.backchannel_logout_uri is None else _visit(grant)
