"""`DATABASE_URL`, parsed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_EXAMPLE = "write sqlite:///path or postgresql://user:password@host/name"


class InvalidDatabaseUrl(ValueError):
    """Not a database that we can use; the message holds nothing of the URL."""


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A database: `path` for SQLite, `url` (libpq's form, with the password in it) for PostgreSQL."""

    is_sqlite: bool
    path: Path
    url: str

    @staticmethod
    def sqlite(path: Path) -> DatabaseUrl:
        """The SQLite database in that file."""
        return DatabaseUrl(True, path, "")


def parse_database_url(value: str) -> DatabaseUrl:
    """Parse `sqlite:///path` or `postgresql://…` (`postgres://` accepted).

    Raises:
        InvalidDatabaseUrl: when it is neither.
    """
    scheme, separator, rest = value.partition("://")
    if not separator:
        raise InvalidDatabaseUrl(f"is no database URL; {_EXAMPLE}")
    if scheme == "sqlite":
        path = unquote(rest.removeprefix("/"))
        if not rest.startswith("/") or not path or "?" in path or ":memory:" in path or "\0" in path:
            raise InvalidDatabaseUrl("names no file that several workers can share; write sqlite:///path")
        return DatabaseUrl.sqlite(Path(path))
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise InvalidDatabaseUrl(f"is no kind of database that is supported; {_EXAMPLE}")
    url = f"postgresql://{rest}"
    try:
        urlsplit(url).port  # noqa: B018 - raises on a port that is no number
    except ValueError:
        raise InvalidDatabaseUrl(
            "the host or the port is malformed; write postgresql://user:password@host:5432/name"
        ) from None
    from psycopg import ProgrammingError  # not loaded for an embedded database
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(url)
    except (ProgrammingError, UnicodeError):
        raise InvalidDatabaseUrl(
            "holds a parameter that libpq does not know, or a % that stands for nothing; "
            "write postgresql://user:password@host/name, and %25 for a % of the password"
        ) from None
    return DatabaseUrl(False, Path(), url)
