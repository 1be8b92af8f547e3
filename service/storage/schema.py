"""The tables: one for each kind of record. `migrations/versions` has their types and indexes.

`tables.sql` has what the migrations make of a new SQLite database. Tests hold all three together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from service.storage.interface import Kind

#: The newest revision in `migrations/versions`.
HEAD: Final = "0008"


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: its name.
        columns: its columns, named like the fields of `interface.Record`, in the order in which a record is read.
        unused: columns that only earlier versions use. They have defaults.
        schema: the schema to name it with; empty for none.
    """

    name: str
    columns: tuple[str, ...]
    unused: tuple[str, ...] = ()
    schema: str = ""

    def __str__(self) -> str:
        """Its name within a statement."""
        if not self.schema:
            return self.name
        quoted = self.schema.replace('"', '""')
        return f'"{quoted}".{self.name}'

    def within(self, schema: str) -> Table:
        """The same table, named with a schema."""
        return replace(self, schema=schema)


_OF_SUBJECTS: Final = ("id_hash", "expires_at", "subject", "body", "version")
_OF_SESSIONS: Final = ("id_hash", "expires_at", "subject", "session_id", "body", "client_id", "version")
_USUAL: Final = ("id_hash", "expires_at", "subject", "grant_id", "session_id", "body", "client_id", "version")

_OTHERS: Final[Mapping[Kind, tuple[str, ...]]] = {
    # One row for each grant. Ids grow with time, and columns that change with use are in no index (decision 0011).
    Kind.GRANT: (*_OF_SESSIONS, "outlives_session", "tokens"),
    Kind.VISIT: _OF_SESSIONS,
    Kind.DELIVERY: (*_OF_SESSIONS, "due_at"),
    Kind.DEVICE: _OF_SESSIONS,
    Kind.STATUS: _OF_SUBJECTS,
    Kind.INVITATION: _OF_SUBJECTS,
}
TABLES: Final = {
    kind: Table(kind.value, _OTHERS[kind]) if kind in _OTHERS else Table(kind.value, _USUAL, ("spent_at",))
    for kind in Kind
}
#: Alembic's own.
REVISIONS: Final = Table("alembic_version", ("version_num",))
#: Tables that exist together since the first revision. A single table of revisions may belong to another program.
FIRST: Final = (REVISIONS.name, "session", "replay_marker")
