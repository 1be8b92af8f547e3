"""What is granted stands on who grants it and to whom: it is stored only where both are there, at that moment.

Whoever ends one of them ends first what others stand on, then what hangs on it: so nothing is stored behind an end.
"""

from __future__ import annotations

from service.protocol.handles import hash_handle
from service.protocol.models import Session
from service.records.clients import Client
from service.storage.interface import Fitting, Kind


def on_session(session: Session) -> Fitting:
    """On a session, under whatever token it goes by now."""
    return Fitting(Kind.SESSION, subject=session.user_id, session_id=session.sid)


def on_client(client: Client) -> tuple[Fitting, ...]:
    """On a client as it was read; one of the environment is there as long as the process is."""
    if client.source == "environment":
        return ()
    return (Fitting(Kind.CLIENT, id_hash=hash_handle(client.client_id), version=client.version),)
