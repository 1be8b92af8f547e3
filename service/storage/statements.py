"""The store's statements. Each text is made once, at its first use.

They are written for both databases: a parameter is `:name`, and `Database.spelled` writes the rest as its database does.
Parameters have the names of the columns; `wanted` is the id to find, `now` is the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from service.storage.interface import NEVER, Kind
from service.storage.schema import TABLES, Table

#: The columns that change when a record is used, except its version, which the statement increments.
_USED: Final = ("expires_at", "body", "outlives_session", "tokens", "due_at")

#: Locks the rows against changes until the transaction ends. Others may still depend on them, because their ids stay.
_TO_CHANGE: Final = " FOR NO KEY UPDATE"
#: Locks the rows against removal and a new id until the transaction ends.
_STANDING: Final = " FOR KEY SHARE"
#: Two sweepers share the work instead of waiting for each other.
_SHARED_OUT: Final = " FOR UPDATE SKIP LOCKED"
#: What a database leaves out if only one transaction writes at a time.
LOCKS: Final = (_TO_CHANGE, _STANDING, _SHARED_OUT)

#: Writes a statement on a table. Further arguments follow.
Build = Callable[..., str]


class Statements:
    """The text of each statement.

    Args:
        spelled: writes a statement as its database does.
        schema: returns the schema to name every table with; empty for none.
    """

    def __init__(self, spelled: Callable[[str], str], schema: Callable[[], str]) -> None:
        self._spelled = spelled
        self._schema = schema
        self._texts: dict[tuple[Any, ...], str] = {}

    def text(self, build: Build, kind: Kind, *depends_on: Any) -> str:
        """The statement on the table of a kind."""
        key = (build, kind, *depends_on)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self.on(TABLES[kind], build, *depends_on)
        return text

    def on(self, table: Table, build: Build, *depends_on: Any) -> str:
        """The statement on a table."""
        return self._spelled(build(table.within(self._schema()), *depends_on))

    def forget(self) -> None:
        """Forget all texts, because the tables are in another schema now."""
        self._texts.clear()


def select_one(table: Table) -> str:
    """The live record of an id."""
    return _select(table, _live("wanted"))


def select_with_user(table: Table) -> str:
    """The same, with the body of its user's record; a user has one, or none."""
    user = TABLES[Kind.USER].within(table.schema)
    body = f"SELECT whose.body FROM {user} AS whose WHERE whose.subject = {table.name}.subject AND whose.expires_at > :now"
    return f"SELECT {_list(table.columns)}, coalesce(({body}), '{{}}') FROM {table} WHERE {_all(_live('wanted'))}"


def select_known(table: Table) -> str:
    """The record of an id, ended or not."""
    return _select(table, [_fits("wanted")])


def select_to_change(table: Table) -> str:
    """The same, locked against changes until the transaction ends."""
    return select_known(table) + _TO_CHANGE


def select_standing(table: Table, names: tuple[str, ...]) -> str:
    """The live record that fits the named columns, locked against removal and a new id until the transaction ends."""
    return f"SELECT id_hash FROM {table} WHERE {_all(_live(*names))}{_STANDING}"


def select_fitting(table: Table, names: tuple[str, ...]) -> str:
    """The live records that fit the named columns; the one that ends last first."""
    return f"{_select(table, _live(*names))} ORDER BY expires_at DESC, id_hash"


def insert_one(table: Table) -> str:
    """A new record."""
    return f"INSERT INTO {table} ({_list(table.columns)}) VALUES ({_list(map(_given, table.columns))})"


def insert_many(table: Table, count: int) -> str:
    """That many new records; each column of each record is named with the number of the record."""
    rows = (f"({_list(f':{name}_{number}' for name in table.columns)})" for number in range(count))
    return f"INSERT INTO {table} ({_list(table.columns)}) VALUES {_list(rows)}"


def insert_missing(table: Table, count: int) -> str:
    """The same, without those whose id exists."""
    return f"{insert_many(table, count)} ON CONFLICT DO NOTHING"


def select_due(table: Table, but: int) -> str:
    """The live records that are due by `until`, the earliest first, up to `most`; without those of that many clients."""
    due = ["due_at <= :until", *_live()]
    if but:
        due.append(f"client_id NOT IN ({_list(f':but_{number}' for number in range(but))})")
    return f"{_select(table, due)} ORDER BY due_at, id_hash LIMIT :most"


def update_one(table: Table) -> str:
    """Update all columns of the live record of an id. Returns a row if there is one."""
    return f"{_update(table, table.columns)} WHERE {_all(_live('wanted'))} RETURNING id_hash"


def update_known(table: Table) -> str:
    """Update all but the id of a record, ended or not, if it has that version. Returns a row if it has."""
    is_known = map(_fits, ("wanted", "known_version"))
    changed = (name for name in table.columns if name != "id_hash")
    return f"{_update(table, changed)} WHERE {_all(is_known)} RETURNING id_hash"


def swap_one(table: Table) -> str:
    """Update the columns that change with use, of the live record of an id, if it has that version.

    Indexed columns do not change.
    """
    used = (name for name in _USED if name in table.columns)
    return f"{_update(table, used)} WHERE {_all(_live('wanted', 'known_version'))}"


def swap_returning(table: Table) -> str:
    """The same, as part of a larger transaction. Returns a row if it was changed."""
    return f"{swap_one(table)} RETURNING id_hash"


def empty_fitting(table: Table, names: tuple[str, ...]) -> str:
    """Remove the access tokens of the live grants that fit, and return these grants. The parameter `tokens` is empty."""
    fitting = [*_live(*names), "tokens != :tokens"]
    return f"{_update(table, ['tokens'])} WHERE {_all(fitting)} RETURNING {_list(table.columns)}"


def delete_one(table: Table, names: tuple[str, ...]) -> str:
    """Delete and return the live record that fits the named columns: its id, and perhaps the version that was read."""
    return f"{_delete(table, _live(*names))} RETURNING {_list(table.columns)}"


def delete_fitting(table: Table, names: tuple[str, ...]) -> str:
    """Delete the live records that fit the named columns."""
    return f"{_delete(table, _live(*names))} RETURNING id_hash"


def delete_with_clients(table: Table, names: tuple[str, ...]) -> str:
    """Delete and return the live records that fit the named columns, each with two bodies of its client's records.

    A client has at most two, the operator's and its own. The bodies are the same if there is one, and NULL if there is none.
    """
    client = TABLES[Kind.CLIENT].within(table.schema)
    of_it = f"FROM {client} WHERE client.client_id = {table.name}.client_id"
    return f"{delete_one(table, names)}, (SELECT min(client.body) {of_it}), (SELECT max(client.body) {of_it})"


def select_ended(table: Table) -> str:
    """Return a row if there is a record that has ended."""
    return f"SELECT expires_at FROM {table} WHERE expires_at <= :now LIMIT 1"


def delete_ended(table: Table) -> str:
    """Delete up to `limit` records that have ended. Returns a row for each: the id of a client, else its own."""
    ended = f"SELECT id_hash FROM {table} WHERE expires_at <= :now LIMIT :limit{_SHARED_OUT}"
    return f"DELETE FROM {table} WHERE id_hash IN ({ended}) RETURNING {_name(table)}"


def count_by_subject(table: Table) -> str:
    """The number of records that end, and the number of the subject that has the most. The empty subject does not count."""
    counted = f"SELECT subject, count(*) AS records FROM {table} WHERE {_ENDS} GROUP BY subject"
    somebodys = "CASE WHEN subject = '' THEN 0 ELSE records END"
    return f"SELECT coalesce(sum(records), 0), coalesce(max({somebodys}), 0) FROM ({counted}) AS counted"


def select_beyond(table: Table) -> str:
    """The records that end and are not among the `most_of_one` newest of their subject, or the first `most` of all.

    The order of all is: the newest of every subject, then the second newest of each, and so on. So the records
    beyond `most` are the oldest of the subjects that have the most.
    """
    place = "row_number() OVER (PARTITION BY subject ORDER BY expires_at DESC, id_hash) AS place"
    ranked = f"SELECT id_hash, subject, expires_at, {place} FROM {table} WHERE {_ENDS}"
    turn = "row_number() OVER (ORDER BY place, expires_at DESC, id_hash) AS turn"
    placed = f"SELECT id_hash, subject, place, {turn} FROM ({ranked}) AS ranked"
    beyond_one = "place > :most_of_one AND subject != ''"
    return f"SELECT id_hash FROM ({placed}) AS placed WHERE turn > :most OR ({beyond_one})"


def delete_known(table: Table) -> str:
    """Delete the record of an id, ended or not. Returns a row as `delete_ended` does."""
    return f"{_delete(table, [_fits('wanted')])} RETURNING {_name(table)}"


def select_slice_end(table: Table) -> str:
    """The last id of the next `limit` records in the order of their ids."""
    ids = f"SELECT id_hash FROM {table} WHERE id_hash > :after ORDER BY id_hash LIMIT :limit"
    return f"SELECT max(id_hash) FROM ({ids}) AS ids"


def select_ended_between(table: Table) -> str:
    """Return a row if a record has ended whose id is after `after` and up to `last`."""
    return f"SELECT id_hash FROM {table} WHERE {_ENDED_BETWEEN} LIMIT 1"


def delete_ended_between(table: Table) -> str:
    """Delete the records that have ended whose ids are after `after` and up to `last`."""
    ended = f"SELECT id_hash FROM {table} WHERE {_ENDED_BETWEEN}{_SHARED_OUT}"
    return f"DELETE FROM {table} WHERE id_hash IN ({ended}) RETURNING id_hash"


# --- of whole tables ---


def select_revisions(table: Table) -> str:
    """The revision of the tables."""
    return f"SELECT version_num FROM {table}"


def update_revision(table: Table) -> str:
    """Another revision."""
    return f"UPDATE {table} SET version_num = :after WHERE version_num = :before"


def count(table: Table) -> str:
    """The number of all records."""
    return f"SELECT count(*) FROM {table}"


def select_page(table: Table) -> str:
    """All columns of up to `most` records after an id, in the order of their ids, without the first `skip`."""
    columns = _list((*table.columns, *table.unused))
    return f"SELECT {columns} FROM {table} WHERE id_hash > :after ORDER BY id_hash LIMIT :most OFFSET :skip"


_ENDS: Final = f"expires_at < {NEVER}"
_ENDED_BETWEEN: Final = "id_hash > :after AND id_hash <= :last AND expires_at <= :now"


def _list(items: Iterable[str]) -> str:
    return ", ".join(items)


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(conditions)


def _name(table: Table) -> str:
    return "client_id" if table.name == Kind.CLIENT else "id_hash"


def _given(name: str) -> str:
    return f":{name}"


def _select(table: Table, conditions: Iterable[str]) -> str:
    return f"SELECT {_list(table.columns)} FROM {table} WHERE {_all(conditions)}"


def _delete(table: Table, conditions: Iterable[str]) -> str:
    return f"DELETE FROM {table} WHERE {_all(conditions)}"


def _update(table: Table, names: Iterable[str]) -> str:
    """Set the named columns. The version increments by itself."""
    changed = (f"{name} = :{name}" for name in names if name != "version")
    return f"UPDATE {table} SET {_list((*changed, 'version = version + 1'))}"


def _live(*names: str) -> list[str]:
    """Conditions: not ended, and the named columns have the given values."""
    return [*map(_fits, names), "expires_at > :now"]


def _fits(name: str) -> str:
    if name == "keep_session_id":
        return "session_id != :keep_session_id"
    column = {"wanted": "id_hash", "known_version": "version"}.get(name, name)
    return f"{column} = :{name}"
