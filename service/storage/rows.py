"""A record as a row of its table, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from service import json_text
from service.storage.interface import Kind, Record
from service.storage.schema import TABLES

#: A grant grows when it is used. Its row has this size from the start, in bytes of its body and access tokens, because
#: SQLite must move several rows when one outgrows its page.
_GRANT_ROOM: Final = 800


def can_fit(values: Mapping[str, Any]) -> bool:
    """Whether a stored record could have these values."""
    # PostgreSQL accepts no NUL in text, so no stored record has one.
    return not any(isinstance(value, str) and "\0" in value for value in values.values())


def _encode(record: Record) -> str:
    body = json_text.to_ascii(record.body)
    return body.ljust(_GRANT_ROOM - len(record.tokens)) if record.kind is Kind.GRANT else body


def row_of(record: Record) -> dict[str, Any]:
    """The columns of a record, by name."""
    return {
        "id_hash": record.id_hash,
        "expires_at": record.expires_at,
        "subject": record.subject,
        "grant_id": record.grant_id,
        "session_id": record.session_id,
        "body": _encode(record),
        "client_id": record.client_id,
        "version": record.version,
        "outlives_session": record.outlives_session,
        "tokens": record.tokens,
        "due_at": record.due_at,
    }


#: Kinds of which the same few records are read again and again. Bodies with more characters than this are not cached.
_SELDOM_CHANGED: Final = frozenset({Kind.CLIENT, Kind.USER})
_MOST_KEPT_CHARS: Final = 4096
_read_kept = lru_cache(maxsize=256)(json_text.read)


def record_of(kind: Kind, row: tuple[Any, ...], *, with_user: bool = False) -> Record:
    """The record of a row, with its columns in the order in which the statements return them; the user's body is last."""
    columns = TABLES[kind].columns
    values = dict(zip((*columns, "user") if with_user else columns, row, strict=True))
    values["body"] = _body(kind, values["body"])
    if with_user:
        values["user"] = _body(Kind.USER, values["user"])
    if kind is Kind.GRANT:  # a database without booleans returns numbers
        values["outlives_session"] = bool(values["outlives_session"])
    return Record(kind, **values)


def _body(kind: Kind, text: str) -> Mapping[str, Any]:
    is_kept = kind in _SELDOM_CHANGED and len(text) <= _MOST_KEPT_CHARS
    body: Mapping[str, Any] = _read_kept(text) if is_kept else json_text.read(text)
    return body
