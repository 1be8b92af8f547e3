"""A store that fails: every verb raises the same error."""

from __future__ import annotations

from typing import Any, NoReturn


class BrokenStore:
    """`storage.interface.Store`, out of order.

    Args:
        error: What every verb raises.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def _fail(self, *_: Any, **__: Any) -> NoReturn:
        raise self._error

    put = get = take = swap = change = replace = list = delete = delete_expired = migrate = schema_state = (
        _fail
    )
    write_refusal = _fail

    def check_revocable(self) -> None:
        """What fails here is every verb, not the room."""

    def close(self) -> None:
        """Nothing is open."""
