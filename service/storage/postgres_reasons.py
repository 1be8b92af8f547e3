"""Explains why PostgreSQL is unavailable: its own message on one line, and what to do if a retry cannot help.

The patterns match the messages of libpq, of servers that speak English, and of PgBouncer, because a refused
connection has no error code. An unknown message, for example in another language, is reported as it is, and counts
as a temporary fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Faults that no retry fixes, and what to do about them. The first match counts.
_REMEDIES: Final = [
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (
            r"no password supplied|password authentication failed|SASL authentication failed|wrong password",
            "correct the user or the password, or let the role log in",
        ),
        (r'role ".*" does not exist|no such user', "create the role, or write the name of one that exists"),
        (r"is not permitted to log in", "run ALTER ROLE … LOGIN, or write another user"),
        (
            r'database ".*" does not exist|no such database',
            "create the database, or write the name of one that exists",
        ),
        (r"permission denied for database", "run GRANT CONNECT ON DATABASE … TO … for this role"),
        (
            r"no pg_hba\.conf entry .*no encryption",
            "write sslmode=require, or let this host in by pg_hba.conf",
        ),
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects", "let this host, role and database in by pg_hba.conf"),
        (
            r"authentication failed|fe_sendauth|authentication method|channel binding",
            "let the role log in by pg_hba.conf",
        ),
        (
            r"does not support SSL|SSL required|no SSL",
            "write the sslmode that the server has, or turn TLS on there",
        ),
        (
            r"certificate|private key file|does not match host name|could not read (root|certificate)",
            "write the files of TLS as the server needs them: sslrootcert, sslcert, sslkey; and its name as host",
        ),
        (
            r"definition of service|service file",
            "write the service into the service file, or the host itself",
        ),
        (r"unsupported startup parameter|unrecognized configuration parameter", "take that parameter out"),
    )
]


_POOLER: Final = "set PYLON_PREPARED_STATEMENTS=0, or let the pooler keep prepared statements"
_OTHERS: Final = "give the service a database or a schema of its own"
_REMEDIES_OF_STATEMENTS: Final = {"26000": _POOLER, "42P05": _POOLER, "42P07": _OTHERS}
#: What psycopg writes before the message of each host that it tried, and before all of them.
_ATTEMPT: Final = re.compile(r"- host: .*?, hostaddr: (?:None|'[^']*'): ")
_NOISE: Final = re.compile(r"connection (?:failed|is bad): ")
_HINTS: Final = ("Is the server running", "DETAIL:", "HINT:")


def one_line(text: str, secrets: Iterable[str]) -> str:
    """A message without line breaks, hints and secrets. With several hosts, it has the message of each."""
    _, _, attempts = text.partition("All failures were:")
    told: list[str] = []
    for line in (attempts or text).splitlines():
        words = " ".join(_NOISE.sub("", _ATTEMPT.sub("", line)).split())
        if words and not words.startswith(_HINTS):
            told.append(words)
    reason = "; ".join(told)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        reason = reason.replace(secret, "…")
    return reason


def remedy(sqlstate: str | None, reason: str, role: str) -> str | None:
    """What the operator can do; None if the fault may be temporary.

    Args:
        sqlstate: the code of a failed statement; None for a refused connection.
        reason: the message from `one_line`.
        role: the database role of the service.
    """
    if sqlstate == "42501":
        return _rights(reason, role)
    if sqlstate is not None:
        return _REMEDIES_OF_STATEMENTS.get(sqlstate)
    return next((remedy for pattern, remedy in _REMEDIES if pattern.search(reason)), None)


def _rights(reason: str, role: str) -> str:
    """How to give the role the right that it lacks."""
    if "must be owner" in reason:
        return f"run pylon-oidc migrate as the role that owns the tables, not as {role}"
    if found := re.search(r'for schema "?([^"\s]+)', reason):
        return (
            f"run GRANT USAGE, CREATE ON SCHEMA {found[1]} TO {role}; without CREATE another role has to run "
            "pylon-oidc migrate"
        )
    return f"run GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … TO {role}"
