"""A real PostgreSQL of the tests' own: made in a temporary folder, run as a child, taken away and given back.

It listens on a loopback port that is held for it from the beginning to the end, so that a test may stop it and
start it again at the same address. Nothing is flushed to disk (`fsync=off`), which makes a commit cheap; what was
committed survives a crash of the server all the same, since the kernel has it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.support.gunicorn import clean_environment, hold_port

_START_S = 90.0
_STOP_S = 30.0
_POLL_S = 0.02
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}


def find_binaries() -> Path:
    """The folder of PostgreSQL's server programs: the newest of Debian's versions, else what PATH has.

    Returns:
        A folder with `initdb` and `postgres` in it.

    Raises:
        FileNotFoundError: When there is none.
    """
    versions = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if (folder / "initdb").exists() and (folder / "postgres").exists()
    ]
    if versions:
        return max(versions, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.parent.name)])
    on_path = shutil.which("initdb")
    if on_path and (Path(on_path).resolve().parent / "postgres").exists():
        return Path(on_path).resolve().parent
    raise FileNotFoundError("no PostgreSQL server programs here: install the package `postgresql`")


def server_account() -> dict[str, Any]:
    """Who runs the server, as arguments for `subprocess`: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": account.pw_uid, "group": grp.getgrgid(account.pw_gid).gr_gid, "extra_groups": []}


@dataclass(frozen=True)
class Role:
    """An ordinary role of a server."""

    name: str
    password: str

    def url(self, of: str) -> str:
        """The URL of a database, for this role.

        Args:
            of: The URL that somebody else has for it.
        """
        host, database = urlsplit(of).netloc.rpartition("@")[2], urlsplit(of).path
        return f"postgresql://{self.name}:{self.password}@{host}{database}"


class PostgresCluster:
    """One PostgreSQL server, from `initdb` to its end."""

    def __init__(
        self, standby_of: PostgresCluster | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Make the cluster and start it.

        Args:
            settings: What else to set, or otherwise: the benchmark flushes each commit to disk.
            standby_of: The primary that it follows and answers reads for, until it is promoted; without one it is a
                primary of its own.

        Raises:
            FileNotFoundError: When PostgreSQL is not installed.
            RuntimeError: When it does not start; the message holds its log.
        """
        self._bin = find_binaries()
        self._account = server_account()
        self._settings = _SETTINGS | dict(settings or {})
        # A short path: PostgreSQL puts a Unix socket into it.
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-pg-"))
        self._data = self.folder / "data"
        self._log_path = self.folder / "log.txt"
        self._password = secrets.token_hex(16) if standby_of is None else standby_of._password
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: psycopg.Connection[Any] | None = None
        self._holder = hold_port()
        self.port: int = self._holder.getsockname()[1]
        try:
            if standby_of is None:
                self._initialise()
            else:
                self._follow(standby_of)
            self.start()
        except BaseException:
            self.remove()
            raise

    def _initialise(self) -> None:
        """Run `initdb` as the account that will run the server."""
        password_file = self.folder / "password"
        password_file.write_text(self._password + "\n")
        password_file.chmod(0o600)
        if self._account:
            for path in (self.folder, password_file):
                os.chown(path, self._account["user"], self._account["group"])
        options = ["--username=pylon", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync"]
        done = subprocess.run(
            [self._bin / "initdb", f"--pgdata={self._data}", f"--pwfile={password_file}", *options],
            cwd=self.folder,
            env=clean_environment(LC_ALL="C"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self._account,
        )
        password_file.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _follow(self, primary: PostgresCluster) -> None:
        """Copy a running primary, and follow it from then on."""
        if self._account:
            os.chown(self.folder, self._account["user"], self._account["group"])
        options = [f"--pgdata={self._data}", f"--dbname={primary.url()}", "--checkpoint=fast", "--no-sync"]
        done = subprocess.run(
            [self._bin / "pg_basebackup", *options, "--write-recovery-conf"],
            cwd=self.folder,
            env=clean_environment(LC_ALL="C"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self._account,
        )
        if done.returncode != 0:
            raise RuntimeError(f"pg_basebackup failed:\n{done.stdout}{done.stderr}")

    @property
    def pid(self) -> int | None:
        """Process id of the server; `None` while it is stopped."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def url(self, database: str = "postgres") -> str:
        """The `postgresql://` URL of a database of this cluster."""
        return f"postgresql://pylon:{self._password}@127.0.0.1:{self.port}/{database}"

    def log(self) -> str:
        """What the server has logged."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start it at its own address, with the data that it has; nothing when it runs already.

        Raises:
            RuntimeError: When it ends, or accepts no connection within 90 s.
        """
        if self.pid is not None:
            return
        settings = self._settings | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [str(self._bin / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=clean_environment(LC_ALL="C"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._account,
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Poll by connecting until the server lets somebody in."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"postgres exited with {process.returncode}:\n{self.log()}")
            try:
                self._admin = psycopg.connect(self.url(), autocommit=True, connect_timeout=5)
            except psycopg.OperationalError:
                time.sleep(_POLL_S)
            else:
                return
        raise RuntimeError(f"postgres accepted no connection within {_START_S:.0f} s:\n{self.log()}")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server and keep its data; nothing when it is stopped already.

        Args:
            mode: `smart` waits for its clients, `fast` ends their connections and shuts down in order,
                `immediate` is a crash, recovered from at the next start.
        """
        if self._admin is not None:
            with contextlib.suppress(psycopg.Error):
                self._admin.close()
            self._admin = None
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(_SIGNALS[mode])
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def create_database(self, like: str = "", owner: str = "pylon") -> str:
        """Make a database.

        Args:
            like: URL of another one, to which nobody is connected, to be copied; an empty one is made without.
            owner: Name of the role that it belongs to.

        Returns:
            Its `postgresql://` URL, for the superuser.
        """
        name = f"t_{secrets.token_hex(8)}"
        template = urlsplit(like).path.removeprefix("/") or "template0"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
        names = [sql.Identifier(each) for each in (name, template, owner)]
        self.execute(statement.format(*names))
        return self.url(name)

    def create_role(self, **settings: str) -> Role:
        """Make an ordinary role that may log in.

        Args:
            settings: What `ALTER ROLE … SET` gives it, by name.
        """
        role = Role(f"r_{secrets.token_hex(8)}", secrets.token_hex(16))
        name = sql.Identifier(role.name)
        self.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, role.password))
        for setting, value in settings.items():
            statement = sql.SQL("ALTER ROLE {} SET {} = {}")
            self.execute(statement.format(name, sql.Identifier(setting), value))
        return role

    def drop_database(self, url: str) -> None:
        """Remove a database of `create_database`, even if somebody is still connected; nothing when it is gone already.

        Args:
            url: As `create_database` returned it.
        """
        name = urlsplit(url).path.removeprefix("/")
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.SQL | sql.Composed | str) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside a transaction.

        Args:
            statement: SQL.

        Returns:
            The rows, where it gives any.

        Raises:
            RuntimeError: While the server is stopped.
        """
        if self._admin is None:
            raise RuntimeError("the server is stopped")
        if isinstance(statement, str):
            statement = sql.SQL(statement)
        cursor = self._admin.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        """End the server and remove its folder."""
        self.stop("immediate")
        self._holder.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
