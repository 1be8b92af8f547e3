"""Which tokens were revoked that stand on nothing that could end: one marker a token, until it would have ended by itself.

Spec: RFC 7009 §2
"""

from __future__ import annotations

from service.handles import hash_handle
from service.storage.interface import Kind, Record, Store


class RevokedTokens:
    """Remembers them.

    Args:
        store: where.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def revoke(self, jti: str, *, until: int, now: int) -> None:
        """Remember a token by its id until it ends; saying so twice is no mistake. Times are Unix s."""
        self._store.put(Record(Kind.REPLAY_MARKER, _id_hash(jti), until), ending=True, now=now)

    def has(self, jti: str, *, now: int) -> bool:
        """Whether it was revoked. One statement."""
        return self._store.get(Kind.REPLAY_MARKER, _id_hash(jti), now=now) is not None


def _id_hash(jti: str) -> str:
    return hash_handle(f"revoked token {jti}")
