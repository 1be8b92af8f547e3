"""What a user lets a client have without being asked again: one row for user, client and issuer."""

from __future__ import annotations

from service.handles import hash_handle
from service.storage.interface import Fitting, Kind


def consent_id(user_id: str, client_id: str, issuer: str) -> str:
    """The id of what a user let a client remember under an issuer."""
    return hash_handle("\n".join((user_id, client_id, issuer)))


def on_consent(user_id: str, client_id: str, issuer: str) -> Fitting:
    """What is granted unasked stands on what the user lets the client remember."""
    return Fitting(Kind.CONSENT, id_hash=consent_id(user_id, client_id, issuer))
