"""A real PgBouncer in front of a PostgreSQL of the tests, in transaction mode: a statement meets any of its sessions."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg

from tests.support.gunicorn import clean_environment, hold_port
from tests.support.postgres import server_account

_START_S = 90.0
_POLL_S = 0.02


class PgBouncer:
    """One PgBouncer, from its start to its end."""

    def __init__(self, *urls: str, pool_size: int = 2) -> None:
        """Start it.

        Args:
            urls: Databases of one server, each with a user who may use it.
            pool_size: How many sessions of the server each of them is given.

        Raises:
            FileNotFoundError: When it is not installed.
            RuntimeError: When it does not start; the message holds its log.
        """
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise FileNotFoundError("no PgBouncer here: install the package `pgbouncer`")
        self._holder = hold_port()
        self.port: int = self._holder.getsockname()[1]
        self._account = server_account()
        self._folder = Path(tempfile.mkdtemp(prefix="pylon-pgb-"))
        self._log = self._folder / "log.txt"
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(self._settings(urls, pool_size))
        if self._account:
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, self._account["user"], self._account["group"])
        self._process = subprocess.Popen(
            [program, "-q", settings],
            cwd=self._folder,
            env=clean_environment(LC_ALL="C"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._account,
        )
        try:
            self._wait_until_ready(self.url(urls[0]))
        except BaseException:
            self.stop()
            raise

    def _settings(self, urls: Sequence[str], pool_size: int) -> str:
        users = self._folder / "users.txt"
        parts = [urlsplit(url) for url in urls]
        users.write_text("".join(sorted({f'"{part.username}" "{part.password}"\n' for part in parts})))
        databases = sorted(
            {
                f"{part.path[1:]} = host={part.hostname} port={part.port} dbname={part.path[1:]}"
                for part in parts
            }
        )
        return "\n".join(
            [
                "[databases]",
                *databases,
                "[pgbouncer]",
                f"logfile = {self._log}",
                "listen_addr = 127.0.0.1",
                f"listen_port = {self.port}",
                "unix_socket_dir =",
                "auth_type = scram-sha-256",
                f"auth_file = {users}",
                "pool_mode = transaction",
                f"default_pool_size = {pool_size}",
                "max_client_conn = 300",
                "server_login_retry = 0.1",
            ]
        )

    def _wait_until_ready(self, url: str) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                psycopg.connect(url, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(_POLL_S)
            else:
                return
        raise RuntimeError(f"pgbouncer lets nobody in:\n{self.log()}")

    def url(self, of: str) -> str:
        """The URL of a database, through the pooler.

        Args:
            of: As it was given to the constructor.
        """
        part = urlsplit(of)
        return f"postgresql://{part.username}:{part.password}@127.0.0.1:{self.port}{part.path}"

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """End it and remove its folder."""
        self._process.kill()
        self._process.wait()
        self._holder.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
