"""Revoked tokens that depend on no session or grant: one marker for each, until the token would have expired.

Spec: RFC 7009 §2
"""

from __future__ import annotations

from service.handles import hash_handle
from service.storage.interface import Kind, Record, Store


class RevokedTokens:
    """Remembers revoked tokens.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def revoke(self, jti: str, *, until: int, now: int) -> None:
        """Remember a token by its id until it expires. Doing it twice is not an error. Times are Unix s."""
        self._store.put(Record(Kind.REPLAY_MARKER, _id_hash(jti), until), ending=True, now=now)

    def has(self, jti: str, *, now: int) -> bool:
        """Whether it was revoked. This is one statement."""
        return self._store.get(Kind.REPLAY_MARKER, _id_hash(jti), now=now) is not None


def _id_hash(jti: str) -> str:
    return hash_handle(f"revoked token {jti}")
