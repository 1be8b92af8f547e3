"""Parses `DATABASE_URL` once. Accepts what libpq accepts, and names the wrong part of what it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

_EXAMPLE: Final = "write sqlite:///path or postgresql://user:password@host/name"
_EXAMPLE_HOST: Final = "write postgresql://user:password@host:5432/name"
#: Characters that end a part of a URL.
_RESERVED: Final = "/?#[]@%"
#: Options whose value libpq reads only when it connects.
_WHOLE_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
#: The values of the best known options.
_VALUES: Final = {
    "sslmode": "disable, allow, prefer, require, verify-ca or verify-full",
    "target_session_attrs": "any, read-write, read-only, primary, standby or prefer-standby",
}


class InvalidDatabaseUrl(ValueError):
    """The URL is wrong. The message contains nothing of the URL."""


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A database: `path` for SQLite, `url` (in libpq's form, with the password) for PostgreSQL."""

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
        InvalidDatabaseUrl: if it is neither.
    """
    scheme, separator, rest = value.partition("://")
    if not separator:
        raise InvalidDatabaseUrl(f"is not a database URL; {_EXAMPLE}")
    if scheme == "sqlite":
        path = unquote(rest.removeprefix("/"))
        if not rest.startswith("/") or not path or "?" in path or ":memory:" in path or "\0" in path:
            raise InvalidDatabaseUrl(
                "does not name a file that several workers can share; write sqlite:///path"
            )
        return DatabaseUrl.sqlite(Path(path))
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise InvalidDatabaseUrl(f"is not a supported kind of database; {_EXAMPLE}")
    url = f"postgresql://{rest}"
    _check_options(_options(url, rest), rest)
    return DatabaseUrl(False, Path(), url)


def _options(url: str, rest: str) -> dict[str, Any]:
    """The options that libpq reads from the URL."""
    from psycopg import ProgrammingError  # not loaded for an embedded database
    from psycopg.conninfo import conninfo_to_dict

    try:
        return conninfo_to_dict(url)
    except UnicodeError:
        raise InvalidDatabaseUrl(f"is not UTF-8; {_EXAMPLE_HOST}") from None
    except ProgrammingError as error:
        text = str(error)
    _check_credentials(rest)
    if "spaces" in text:
        what = "contains a space; write %20 instead"
    elif "percent-encoded" in text:
        what = "contains a % that is not part of an escape; write %25 for a % in the user or the password"
    elif "query parameter" in text or "separator" in text:
        what = "contains a parameter that libpq does not know, or one without a value; write it like ?sslmode=require"
    else:
        what = f"the host is malformed, for example an IPv6 address without brackets; {_EXAMPLE_HOST}"
    raise InvalidDatabaseUrl(what)


def _check_credentials(rest: str) -> None:
    """Refuse a user or password that ends too early: libpq looks for the first `@`, before the first `/`.

    Raises:
        InvalidDatabaseUrl: names the characters to escape.
    """
    before_slash, _, behind = rest.partition("/")
    path = behind.partition("?")[0]
    is_cut = before_slash.count("@") > 1 or "@" in path or ("@" not in before_slash and "@" in behind)
    if not is_cut:
        return
    # Up to the @ that was meant: the last one before the path or the parameters of a correct URL.
    meant = rest[: rest.rindex("@")]
    written = ", ".join(f"{quote(char, safe='')} for {char}" for char in _RESERVED if char in meant)
    raise InvalidDatabaseUrl(f"the user or the password contains a reserved character; write {written}")


def _check_options(options: Mapping[str, Any], rest: str) -> None:
    hosts, addresses, ports = (
        str(options.get(name) or "").split(",") for name in ("host", "hostaddr", "port")
    )
    if "@" in "".join(hosts + ports) or any(not _is_port(port) for port in ports):
        _check_credentials(rest)
        raise InvalidDatabaseUrl(f"a port is not a number from 1 to 65535; {_EXAMPLE_HOST}")
    _check_credentials(rest)
    for name in _WHOLE_NUMBERS:
        if name in options and not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", str(options[name])):
            raise InvalidDatabaseUrl(
                f"the value of its parameter {name} is not a whole number; write {name}=10"
            )
    _check_values(options, max(len(hosts), len(addresses)))


def _is_port(text: str) -> bool:
    return not text or (re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65_536)


def _check_values(options: Mapping[str, Any], hosts: int) -> None:
    """Let libpq check the values, by connecting to sockets that do not exist."""
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    if "service" in options:  # the content of the service file is not known here
        return
    nowhere = {**options, "host": ",".join(["/nonexistent"] * hosts), "hostaddr": None}
    connection = pq.PGconn.connect_start(make_conninfo("", **nowhere).encode())
    text = connection.error_message.decode(errors="replace")
    connection.finish()
    if "/nonexistent" in text:
        return
    if "could not match" in text:
        raise InvalidDatabaseUrl("does not have as many ports as hosts; write host1:5432,host2:5432")
    name = next((name for name in options if re.search(rf"\b{name}\b", text)), "")
    what = f"libpq refuses the value of its parameter {name}" if name else "libpq refuses a parameter"
    raise InvalidDatabaseUrl(f"{what}; write {_VALUES.get(name, 'one that libpq documents')}")
