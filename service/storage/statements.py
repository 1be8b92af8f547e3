"""The statements of the store, in SQLAlchemy Core; each is compiled once, at its first use.

What a statement is given is named in its text: the columns of a record by their names, `wanted` for the id that finds
it, `now` for the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Dialect,
    Table,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from service.storage.interface import Kind
from service.storage.schema import REVISIONS, TABLES

#: The columns of a row, by the names of `interface.Record`'s fields; a table has those that its kind needs.
COLUMNS: Final = (
    "id_hash",
    "expires_at",
    "subject",
    "grant_id",
    "session_id",
    "body",
    "client_id",
    "version",
    "outlives_session",
    "tokens",
)
#: Those that change when a record is used, but for its version, which the statement counts up.
_USED: Final = ("expires_at", "body", "outlives_session", "tokens")

#: Makes a statement on a table; what else it depends on follows.
Build = Callable[..., ClauseElement]


class Statements:
    """The text of each statement, as the engine's dialect writes it.

    Args:
        dialect: the engine's.
        schema: says which schema every table is named with; with none where it is empty.
    """

    def __init__(self, dialect: Dialect, schema: Callable[[], str]) -> None:
        self._dialect = dialect
        self._schema = schema
        self._texts: dict[tuple[Any, ...], str] = {}

    def text(self, build: Build, kind: Kind, *depends_on: Any) -> str:
        """The statement on the table of a kind."""
        key = (build, kind, *depends_on)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self.compiled(build(TABLES[kind], *depends_on))
        return text

    def revisions(self) -> str:
        """The revision that the tables have."""
        return self.compiled(select(REVISIONS.c.version_num))

    def forget(self) -> None:
        """The tables are somewhere else now."""
        self._texts.clear()

    def compiled(self, statement: ClauseElement) -> str:
        """The text of a statement, each table named with its schema."""
        schema = self._schema()
        if not schema:
            return str(statement.compile(dialect=self._dialect))
        named = statement.compile(
            dialect=self._dialect, schema_translate_map={None: schema}, render_schema_translate=True
        )
        return str(named)


def select_one(table: Table) -> ClauseElement:
    """The live record of an id."""
    return select(*columns(table)).where(*_live(table, "wanted"))


def select_known(table: Table) -> ClauseElement:
    """The record of an id, ended or not."""
    return select(*columns(table)).where(table.c.id_hash == bindparam("wanted"))


def select_to_change(table: Table) -> ClauseElement:
    """The same; nobody else changes it until the transaction ends. Its id stays, so that others may stand on it."""
    return (
        select(*columns(table)).where(table.c.id_hash == bindparam("wanted")).with_for_update(key_share=True)
    )


def select_standing(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live record that fits the named columns; nobody removes it, or gives it another id, until the transaction ends."""
    fitting = select(table.c.id_hash).where(*_live(table, *names))
    return fitting.with_for_update(read=True, key_share=True)


def select_fitting(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live records that fit the named columns; the one that ends last first."""
    fitting = select(*columns(table)).where(*_live(table, *names))
    return fitting.order_by(table.c.expires_at.desc(), table.c.id_hash)


def insert_one(table: Table) -> ClauseElement:
    """A new record."""
    return insert(table).values({column.name: bindparam(column.name) for column in columns(table)})


def update_one(table: Table) -> ClauseElement:
    """All of the live record of an id; returns a row when there is one."""
    return _updated(table, _given(table)).where(*_live(table, "wanted")).returning(table.c.id_hash)


def update_known(table: Table) -> ClauseElement:
    """All but the id of the record of an id, ended or not, where it has that version; returns a row when it has."""
    changed = _updated(table, tuple(name for name in _given(table) if name != "id_hash"))
    is_known = (_fits(table, name) for name in ("wanted", "known_version"))
    return changed.where(*is_known).returning(table.c.id_hash)


def swap_one(table: Table) -> ClauseElement:
    """What changes when it is used, of the live record of an id that has that version.

    What it is found by stays, and its indexes are left alone.
    """
    used = tuple(name for name in _USED if name in table.c)
    return _updated(table, used).where(*_live(table, "wanted", "known_version"))


def empty_fitting(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """Take the access tokens from the live grants that fit; `tokens` is empty."""
    has_some = table.c.tokens != bindparam("tokens")
    emptied = _updated(table, ("tokens",)).where(*_live(table, *names), has_some)
    return emptied.returning(table.c.id_hash)


def delete_one(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live record that fits what is named, its id and perhaps the version that was read, returned."""
    return delete(table).where(*_live(table, *names)).returning(*columns(table))


def delete_fitting(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live records that fit what is named."""
    return delete(table).where(*_live(table, *names)).returning(table.c.id_hash)


def select_ended(table: Table) -> ClauseElement:
    """A row where there is a record that has ended."""
    ended = select(table.c.expires_at).where(table.c.expires_at <= bindparam("now"))
    return ended.limit(literal_column("1")).offset(literal_column("0"))


def delete_ended(table: Table) -> ClauseElement:
    """Up to `limit` records that have ended."""
    ended = (
        select(table.c.id_hash)
        .where(table.c.expires_at <= bindparam("now"))
        .limit(bindparam("limit"))
        .offset(literal_column("0"))
        # Two sweepers share the work instead of waiting for each other.
        .with_for_update(skip_locked=True)
    )
    return delete(table).where(table.c.id_hash.in_(ended)).returning(table.c.id_hash)


def count_by_subject(table: Table) -> ClauseElement:
    """How many records there are, and how many of the subject that has the most; the empty subject is nobody."""
    each = select(table.c.subject, func.count().label("count")).group_by(table.c.subject).subquery()
    somebodys = case((each.c.subject == literal_column("''"), literal_column("0")), else_=each.c["count"])
    return select(
        func.coalesce(func.sum(each.c["count"]), literal_column("0")),
        func.coalesce(func.max(somebodys), literal_column("0")),
    )


def select_beyond(table: Table) -> ClauseElement:
    """What is not among the `most_of_one` newest of its subject, or not among the first `most` of all.

    First of all are the newest of every subject, then the second newest of each, and so on: what is beyond are the
    oldest of whichever subject has the most.
    """
    newest_first = [table.c.expires_at.desc(), table.c.id_hash]
    place = func.row_number().over(partition_by=table.c.subject, order_by=newest_first).label("place")
    ranked = select(table.c.id_hash, table.c.subject, table.c.expires_at, place).subquery()
    turn = func.row_number().over(order_by=[ranked.c.place, ranked.c.expires_at.desc(), ranked.c.id_hash])
    placed = select(ranked.c.id_hash, ranked.c.subject, ranked.c.place, turn.label("turn")).subquery()
    beyond_one = and_(placed.c.place > bindparam("most_of_one"), placed.c.subject != literal_column("''"))
    return select(placed.c.id_hash).where(or_(placed.c.turn > bindparam("most"), beyond_one))


def delete_known(table: Table) -> ClauseElement:
    """The record of an id, ended or not; returns a row when there was one."""
    return delete(table).where(table.c.id_hash == bindparam("wanted")).returning(table.c.id_hash)


def select_slice_end(table: Table) -> ClauseElement:
    """The last id of the next `limit` records in the order of their ids."""
    after = select(table.c.id_hash).where(table.c.id_hash > bindparam("after")).order_by(table.c.id_hash)
    ids = after.limit(bindparam("limit")).offset(literal_column("0")).subquery()
    return select(func.max(ids.c.id_hash))


def select_ended_between(table: Table) -> ClauseElement:
    """A row where a record has ended whose id is beyond `after`, `last` included."""
    ended = select(table.c.id_hash).where(*_ended_between(table))
    return ended.limit(literal_column("1")).offset(literal_column("0"))


def delete_ended_between(table: Table) -> ClauseElement:
    """The records that have ended whose ids are beyond `after`, `last` included."""
    ended = select(table.c.id_hash).where(*_ended_between(table)).with_for_update(skip_locked=True)
    return delete(table).where(table.c.id_hash.in_(ended)).returning(table.c.id_hash)


def columns(table: Table) -> list[ColumnElement[Any]]:
    """Those that a record has, in the order in which they are read."""
    return [table.c[name] for name in COLUMNS if name in table.c]


def _given(table: Table) -> tuple[str, ...]:
    """What an update gives; the version it counts up by itself."""
    return tuple(name for name in COLUMNS if name in table.c and name != "version")


def _ended_between(table: Table) -> list[ColumnElement[bool]]:
    between = [table.c.id_hash > bindparam("after"), table.c.id_hash <= bindparam("last")]
    return [*between, table.c.expires_at <= bindparam("now")]


def _live(table: Table, *names: str) -> list[ColumnElement[bool]]:
    """Not ended, and as the named values say."""
    return [*(_fits(table, name) for name in names), table.c.expires_at > bindparam("now")]


def _fits(table: Table, name: str) -> ColumnElement[bool]:
    if name == "keep_session_id":
        return table.c.session_id != bindparam(name)
    column = {"wanted": "id_hash", "known_version": "version"}.get(name, name)
    return table.c[column] == bindparam(name)


def _updated(table: Table, names: tuple[str, ...]) -> Update:
    given: dict[str, Any] = {name: bindparam(name) for name in names}
    return update(table).values({**given, "version": table.c.version + literal_column("1")})
