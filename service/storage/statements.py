"""The store's statements, in SQLAlchemy Core. Each is compiled once, at its first use.

The parameters are named: the columns of a record by their names, `wanted` for the id to find, `now` for the time.
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

# Both databases write `ON CONFLICT` in the same way.
from sqlalchemy.dialects.postgresql import insert as upsert

from service.storage.interface import NEVER, Kind
from service.storage.schema import REVISIONS, TABLES

#: The columns of a row, named like the fields of `interface.Record`. A table has those that its kind needs.
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
    "due_at",
)
#: The columns that change when a record is used, except its version, which the statement increments.
_USED: Final = ("expires_at", "body", "outlives_session", "tokens", "due_at")

#: Makes a statement on a table. Further arguments follow.
Build = Callable[..., ClauseElement]


class Statements:
    """The text of each statement, in the engine's dialect.

    Args:
        dialect: the engine's.
        schema: returns the schema to name every table with; empty for none.
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
        """The statement that reads the revision of the tables."""
        return self.compiled(select(REVISIONS.c.version_num))

    def forget(self) -> None:
        """Forget all texts, because the tables are in another schema now."""
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
    """The same, locked against changes until the transaction ends. Others may still depend on it, because its id stays."""
    return (
        select(*columns(table)).where(table.c.id_hash == bindparam("wanted")).with_for_update(key_share=True)
    )


def select_standing(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live record that fits the named columns, locked against removal and a new id until the transaction ends."""
    fitting = select(table.c.id_hash).where(*_live(table, *names))
    return fitting.with_for_update(read=True, key_share=True)


def select_fitting(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live records that fit the named columns; the one that ends last first."""
    fitting = select(*columns(table)).where(*_live(table, *names))
    return fitting.order_by(table.c.expires_at.desc(), table.c.id_hash)


def insert_one(table: Table) -> ClauseElement:
    """A new record."""
    return insert(table).values({column.name: bindparam(column.name) for column in columns(table)})


def insert_many(table: Table, count: int) -> ClauseElement:
    """That many new records; each column of each record is named with the number of the record."""
    return insert(table).values(_many(table, count))


def insert_missing(table: Table, count: int) -> ClauseElement:
    """The same, without those whose id exists."""
    return upsert(table).values(_many(table, count)).on_conflict_do_nothing()


def select_due(table: Table, but: int) -> ClauseElement:
    """The live records that are due by `until`, the earliest first, up to `most`; without those of that many clients."""
    due = [table.c.due_at <= bindparam("until"), table.c.expires_at > bindparam("now")]
    if but:
        due.append(table.c.client_id.not_in([bindparam(f"but_{number}") for number in range(but)]))
    found = select(*columns(table)).where(*due).order_by(table.c.due_at, table.c.id_hash)
    return found.limit(bindparam("most")).offset(literal_column("0"))


def update_one(table: Table) -> ClauseElement:
    """Update all columns of the live record of an id. Returns a row if there is one."""
    return _updated(table, _given(table)).where(*_live(table, "wanted")).returning(table.c.id_hash)


def update_known(table: Table) -> ClauseElement:
    """Update all but the id of a record, ended or not, if it has that version. Returns a row if it has."""
    changed = _updated(table, tuple(name for name in _given(table) if name != "id_hash"))
    is_known = (_fits(table, name) for name in ("wanted", "known_version"))
    return changed.where(*is_known).returning(table.c.id_hash)


def swap_one(table: Table) -> ClauseElement:
    """Update the columns that change with use, of the live record of an id, if it has that version.

    Indexed columns do not change.
    """
    return _swapped(table)


def swap_returning(table: Table) -> ClauseElement:
    """The same, as part of a larger transaction. Returns a row if it was changed."""
    return _swapped(table).returning(table.c.id_hash)


def empty_fitting(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """Remove the access tokens of the live grants that fit, and return these grants. The parameter `tokens` is empty."""
    has_some = table.c.tokens != bindparam("tokens")
    emptied = _updated(table, ("tokens",)).where(*_live(table, *names), has_some)
    return emptied.returning(*columns(table))


def delete_one(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """Delete and return the live record that fits the named columns: its id, and perhaps the version that was read."""
    return delete(table).where(*_live(table, *names)).returning(*columns(table))


def delete_fitting(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """Delete the live records that fit the named columns."""
    return delete(table).where(*_live(table, *names)).returning(table.c.id_hash)


def delete_with_clients(table: Table, names: tuple[str, ...]) -> ClauseElement:
    """The live records that fit the named columns, each with the body of its client's record."""
    client = TABLES[Kind.CLIENT]
    # Within RETURNING, columns are written without their table for SQLite: `client_id = client_id` fits every client.
    is_its_client: ColumnElement[bool] = literal_column(f"{client.name}.client_id = {table.name}.client_id")
    body = select(client.c.body).where(is_its_client).scalar_subquery()
    return delete(table).where(*_live(table, *names)).returning(*columns(table), body)


def select_ended(table: Table) -> ClauseElement:
    """Return a row if there is a record that has ended."""
    ended = select(table.c.expires_at).where(table.c.expires_at <= bindparam("now"))
    return ended.limit(literal_column("1")).offset(literal_column("0"))


def delete_ended(table: Table) -> ClauseElement:
    """Delete up to `limit` records that have ended."""
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
    """The number of records that end, and the number of the subject that has the most. The empty subject does not count."""
    counted = select(table.c.subject, func.count().label("count")).where(_ends(table))
    each = counted.group_by(table.c.subject).subquery()
    somebodys = case((each.c.subject == literal_column("''"), literal_column("0")), else_=each.c["count"])
    return select(
        func.coalesce(func.sum(each.c["count"]), literal_column("0")),
        func.coalesce(func.max(somebodys), literal_column("0")),
    )


def select_beyond(table: Table) -> ClauseElement:
    """The records that end and are not among the `most_of_one` newest of their subject, or the first `most` of all.

    The order of all is: the newest of every subject, then the second newest of each, and so on. So the records
    beyond `most` are the oldest of the subjects that have the most.
    """
    newest_first = [table.c.expires_at.desc(), table.c.id_hash]
    place = func.row_number().over(partition_by=table.c.subject, order_by=newest_first).label("place")
    ending = select(table.c.id_hash, table.c.subject, table.c.expires_at, place).where(_ends(table))
    ranked = ending.subquery()
    turn = func.row_number().over(order_by=[ranked.c.place, ranked.c.expires_at.desc(), ranked.c.id_hash])
    placed = select(ranked.c.id_hash, ranked.c.subject, ranked.c.place, turn.label("turn")).subquery()
    beyond_one = and_(placed.c.place > bindparam("most_of_one"), placed.c.subject != literal_column("''"))
    return select(placed.c.id_hash).where(or_(placed.c.turn > bindparam("most"), beyond_one))


def delete_known(table: Table) -> ClauseElement:
    """Delete the record of an id, ended or not. Returns a row if there was one."""
    return delete(table).where(table.c.id_hash == bindparam("wanted")).returning(table.c.id_hash)


def select_slice_end(table: Table) -> ClauseElement:
    """The last id of the next `limit` records in the order of their ids."""
    after = select(table.c.id_hash).where(table.c.id_hash > bindparam("after")).order_by(table.c.id_hash)
    ids = after.limit(bindparam("limit")).offset(literal_column("0")).subquery()
    return select(func.max(ids.c.id_hash))


def select_ended_between(table: Table) -> ClauseElement:
    """Return a row if a record has ended whose id is after `after` and up to `last`."""
    ended = select(table.c.id_hash).where(*_ended_between(table))
    return ended.limit(literal_column("1")).offset(literal_column("0"))


def delete_ended_between(table: Table) -> ClauseElement:
    """Delete the records that have ended whose ids are after `after` and up to `last`."""
    ended = select(table.c.id_hash).where(*_ended_between(table)).with_for_update(skip_locked=True)
    return delete(table).where(table.c.id_hash.in_(ended)).returning(table.c.id_hash)


def columns(table: Table) -> list[ColumnElement[Any]]:
    """The columns of a record, in the order in which they are read."""
    return [table.c[name] for name in COLUMNS if name in table.c]


def _many(table: Table, count: int) -> list[dict[str, Any]]:
    return [
        {column.name: bindparam(f"{column.name}_{number}") for column in columns(table)}
        for number in range(count)
    ]


def _given(table: Table) -> tuple[str, ...]:
    """The columns that an update sets. It increments the version by itself."""
    return tuple(name for name in COLUMNS if name in table.c and name != "version")


def _ends(table: Table) -> ColumnElement[bool]:
    return table.c.expires_at < literal_column(str(NEVER))


def _ended_between(table: Table) -> list[ColumnElement[bool]]:
    between = [table.c.id_hash > bindparam("after"), table.c.id_hash <= bindparam("last")]
    return [*between, table.c.expires_at <= bindparam("now")]


def _live(table: Table, *names: str) -> list[ColumnElement[bool]]:
    """Conditions: not ended, and the named columns have the given values."""
    return [*(_fits(table, name) for name in names), table.c.expires_at > bindparam("now")]


def _fits(table: Table, name: str) -> ColumnElement[bool]:
    if name == "keep_session_id":
        return table.c.session_id != bindparam(name)
    column = {"wanted": "id_hash", "known_version": "version"}.get(name, name)
    return table.c[column] == bindparam(name)


def _swapped(table: Table) -> Update:
    used = tuple(name for name in _USED if name in table.c)
    return _updated(table, used).where(*_live(table, "wanted", "known_version"))


def _updated(table: Table, names: tuple[str, ...]) -> Update:
    given: dict[str, Any] = {name: bindparam(name) for name in names}
    return update(table).values({**given, "version": table.c.version + literal_column("1")})
