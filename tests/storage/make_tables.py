"""Write `service/storage/tables.sql`: what the migrations make of an empty SQLite file.

Run after each change of the migrations, by `python -m tests.storage.make_tables`.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

import service.storage
from service.storage.schema import HEAD, REVISIONS
from tests.storage.stores import migrated_to

TABLES_SQL: Final = Path(service.storage.__file__).with_name("tables.sql")
_HEAD: Final = """\
-- The tables of a new SQLite database, as all migrations leave them. Made by: python -m tests.storage.make_tables
"""


def tables_sql() -> str:
    """What the file has to say."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pylon.sqlite3"
        migrated_to(f"sqlite:///{path}", HEAD)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            made = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name"
            statements = [_in_lines(sql) for (sql,) in connection.execute(made)]
    statements.append(f"INSERT INTO {REVISIONS} VALUES ('{HEAD}')")
    return _HEAD + ";\n".join(statements) + "\n"


def _in_lines(sql: str) -> str:
    """One line for each column, also for those that a later migration has added."""
    lines = re.sub(r", (?=\w+ [A-Z])", ", \n\t", sql)
    return lines.replace("\t", "    ").replace(" \n", "\n")


if __name__ == "__main__":
    TABLES_SQL.write_text(tables_sql())
