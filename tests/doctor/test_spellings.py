"""The lines that close the admin API close it in every spelling, in front of a server that tells none apart."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from bench.servers import Granian
from tests.doctor.asking import ask_doctor
from tests.doctor.deployment import (
    APACHE,
    CADDY,
    HAPROXY,
    SETTINGS,
    Deployment,
    Files,
    fixed,
    read_deployments,
    settings_of,
)
from tests.doctor.running import NAME, Apps, Disk, Running, run
from tests.support.gunicorn import ADMIN

CLIENTS, SESSION = "/api/oidc/clients", "/api/auth/session"
#: Twenty that some program between a client and a router takes for the same path.
SPELLINGS = [
    ("GET", CLIENTS),
    ("GET", "/%61pi/oidc/clients"),
    ("GET", "/a%70i/oidc/clients"),
    ("GET", "/api/%6Fidc/clients"),
    ("GET", "/api/oid%63/clients"),
    ("GET", "/api%2Foidc/clients"),
    ("GET", "/api%2foidc%2fclients"),
    ("GET", "/%61%70%69/%6F%69%64%63/%63%6C%69%65%6E%74%73"),
    ("GET", "//api/oidc/clients"),
    ("GET", "/api//oidc/clients"),
    ("GET", "/./api/oidc/clients"),
    ("GET", "/oidc/../api/oidc/clients"),
    ("GET", "/oidc/%2e%2E/api/oidc/clients"),
    ("GET", "/oidc/..%2Fapi/oidc/clients"),
    ("GET", "/%2561pi/oidc/clients"),
    ("GET", "/api/auth/%75sers/ada/sessions"),
    ("GET", "/api/auth%2Fusers/ada/sessions"),
    ("POST", SESSION),
    ("POST", "/api/auth/%73ession"),
    ("POST", "/api%2Fauth/sessio%6E"),
    ("GET", "/ready%7A"),
]
GOOD = {
    each.proxy: each
    for each in read_deployments("good")
    if each.name in {"caddy", "apache", "haproxy", "shipped"}
}
#: The files as they are when nobody has closed anything yet: what is taken out of them.
_OPENED = {
    "haproxy": (HAPROXY, "    http-request deny deny_status 403 if "),
    "apache": (APACHE, "        Require ip 127.0.0.1"),
    "caddy": (CADDY, "\trespond @"),
}


class _OneServer(Apps):
    """The application in a server that passes no raw path, whatever the settings."""

    def __init__(self, disk: Disk, server: Granian) -> None:
        super().__init__(disk)
        self._server = server

    def get(self, _text: str, _offset_s: int) -> Any:
        """That server."""
        return self._server


@pytest.fixture(scope="module")
def granian(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Granian]:
    """granian, with the usual settings of the deployments."""
    files = GOOD["caddy"].files()
    data = {"PYLON_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    server = Granian(settings_of(disk.here(files[SETTINGS])) | data)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _running(
    deployment: Deployment, files: Files, disk: Disk, granian: Granian, folder: Path
) -> Iterator[Running]:
    for path in (folder, folder.parent):
        path.chmod(0o755)
    with run(deployment, files, cast(Apps, _OneServer(disk, granian)), disk, folder / "cache") as running:
        yield running


def _ask(running: Running, method: str, target: str) -> bytes:
    """Ask as somebody who is not let in, with the admin token."""
    context = ssl.create_default_context(cafile=str(running.disk.ca))
    with (
        socket.create_connection(("127.0.0.1", running.proxy.https_port), 10, ("127.0.0.2", 0)) as wire,
        context.wrap_socket(wire, server_hostname=NAME) as tls,
    ):
        head = f"{method} {target} HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {ADMIN}\r\nConnection: close\r\n"
        body = '{"user_id": "mallory"}' if method == "POST" else ""
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        tls.sendall(f"{head}{more}\r\n{body}".encode())
        return b"".join(iter(lambda: tls.recv(65536), b""))


def _got_through(running: Running) -> list[str]:
    """The spellings by which the admin API did what it was asked."""
    answers = {f"{m} {target}": _ask(running, m, target) for m, target in SPELLINGS}
    return [spelling for spelling, answer in answers.items() if answer[9:12] in {b"200", b"201"}]


@pytest.mark.parametrize("proxy", GOOD)
def test_no_spelling_gets_through(proxy: str, disk: Disk, granian: Granian, tmp_path: Path) -> None:
    """nginx, Apache, HAProxy and Caddy as they are shipped or shown: each compares what the server will have decoded."""
    with _running(GOOD[proxy], GOOD[proxy].files(), disk, granian, tmp_path) as running:
        assert _got_through(running) == []
        assert _ask(running, "GET", "/oidc/jwks").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("proxy", _OPENED)
def test_the_line_of_the_finding_closes_every_spelling(
    proxy: str, disk: Disk, granian: Granian, tmp_path: Path
) -> None:
    """What doctor names for an open admin API is pasted into a proxy that has nothing of the kind."""
    files = _opened(proxy)
    with _running(GOOD[proxy], files, disk, granian, tmp_path) as running:
        assert len(_got_through(running)) > 5
        report = ask_doctor(running.url, [*running.way(), "--source", "127.0.0.2", "--proxy", proxy])
        assert report.findings[0]["id"] == "admin-open"
    with _running(GOOD[proxy], fixed(files, report.fix()), disk, granian, tmp_path) as running:
        assert _got_through(running) == []


def test_an_encoded_spelling_that_gets_through_is_told(disk: Disk, granian: Granian, tmp_path: Path) -> None:
    """A proxy that compares the path as it was sent, before such a server: closed for everybody who spells it."""
    files = GOOD["haproxy"].files()
    files[HAPROXY] = (
        files[HAPROXY].replace("path,url_dec -m reg", "path_reg").replace("path,url_dec -m str", "path")
    )
    with _running(GOOD["haproxy"], files, disk, granian, tmp_path) as running:
        assert _got_through(running) != []
        report = ask_doctor(running.url, [*running.way(), "--source", "127.0.0.2", "--proxy", "haproxy"])
        assert [each["id"] for each in report.findings if each["severity"] == "error"] == ["admin-open"]
        assert "%61pi" in report.findings[0]["seen"]
        assert "%73ession" in report.findings[0]["seen"]
    with _running(GOOD["haproxy"], fixed(files, report.fix()), disk, granian, tmp_path) as running:
        assert _got_through(running) == []


def _opened(proxy: str) -> Files:
    """A deployment's files with nothing closed."""
    files = GOOD[proxy].files()
    file, line = _OPENED[proxy]
    kept = [text for text in files[file].splitlines(keepends=True) if not text.startswith(line.rstrip("\n"))]
    return files | {file: "".join(kept)}
