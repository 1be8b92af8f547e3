"""Secrets as operators handle them: one for one purpose, none that everybody knows, none that others may read."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.clients import Clients
from service.keys.material import KeyFault, check_secret_strength
from service.startup import inspect, prepare
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.http.driver import START
from tests.settings.conftest import Run
from tests.settings.reading import STRONG, read
from tests.support.cases import each_of
from tests.support.gunicorn import PROJECT, clean_environment, rsa_pem

CALLBACK = "https://rp.example/cb"
SHARED = ("PYLON_JWT_SECRET", "PYLON_ADMIN_TOKEN", "PYLON_TRUSTED_SECRET")
OTHER = STRONG[::-1]
SEALING = base64.b64encode(bytes(range(32))).decode()


def _clients(*secrets: str) -> str:
    entries = [
        {"client_id": f"c-{number}", "redirect_uris": [CALLBACK], "client_secret": secret}
        for number, secret in enumerate(secrets)
    ]
    return json.dumps(entries)


# --- one secret, one purpose ---


@each_of(
    ("environ", "at_fault"),
    [
        (dict.fromkeys(SHARED[:2], STRONG), {"PYLON_ADMIN_TOKEN": "PYLON_JWT_SECRET"}),
        (dict.fromkeys(SHARED[1:], STRONG), {"PYLON_TRUSTED_SECRET": "PYLON_ADMIN_TOKEN"}),
        (
            dict.fromkeys(SHARED, STRONG),
            {"PYLON_ADMIN_TOKEN": "PYLON_JWT_SECRET", "PYLON_TRUSTED_SECRET": "PYLON_JWT_SECRET"},
        ),
        (
            {"PYLON_ADMIN_TOKEN": STRONG, "PYLON_OIDC_CLIENTS": _clients(OTHER, STRONG)},
            {"PYLON_OIDC_CLIENTS": "PYLON_ADMIN_TOKEN"},
        ),
        (
            {"PYLON_KEY_ENCRYPTION_KEY": SEALING, "PYLON_ADMIN_TOKEN": SEALING},
            {"PYLON_ADMIN_TOKEN": "PYLON_KEY_ENCRYPTION_KEY"},
        ),
        (
            {"PYLON_KEY_ENCRYPTION_KEY": f"{base64.b64encode(os.urandom(32)).decode()},{SEALING}",
             "PYLON_JWT_SECRET": SEALING.rstrip("=")},
            {"PYLON_JWT_SECRET": "PYLON_KEY_ENCRYPTION_KEY"},
        ),
    ],
)  # fmt: skip
def test_one_secret_for_two_purposes_is_a_fault(
    tmp_path: Path, environ: dict[str, str], at_fault: dict[str, str]
) -> None:
    """RFC 8725 §3.5: a service that is given the one would have the other; the fault names both, and shows neither."""
    faults = read(tmp_path, PYLON_DEV_MODE="1", **environ).faults
    assert {fault.name: [name for name in environ if name in fault.text] for fault in faults} == {
        name: [other] for name, other in at_fault.items()
    }
    for fault in faults:
        assert "; write another" in fault.text
        assert STRONG not in str(fault) and SEALING not in str(fault)


def test_different_secrets_are_no_fault(tmp_path: Path) -> None:
    """Each its own; an unset one, or one that is wrong itself, is compared to nothing."""
    good = {
        "PYLON_JWT_SECRET": STRONG,
        "PYLON_ADMIN_TOKEN": OTHER,
        "PYLON_OIDC_CLIENTS": _clients("x" + OTHER),
    }
    assert read(tmp_path, PYLON_DEV_MODE="1", **good).faults == []
    wrong = {"PYLON_JWT_SECRET": "short", "PYLON_ADMIN_TOKEN": "short"}
    assert len(read(tmp_path, **wrong).faults) == 2


def test_clients_that_share_a_secret_are_warned_of(tmp_path: Path) -> None:
    """Each could act for the other: said by their ids, and not refused."""
    reading = read(tmp_path, PYLON_DEV_MODE="1", PYLON_OIDC_CLIENTS=_clients(STRONG, OTHER, STRONG))
    (warning,) = [each for each in reading.warnings if "PYLON_OIDC_CLIENTS" in each]
    assert "c-0" in warning and "c-2" in warning and "c-1" not in warning
    assert (reading.faults, STRONG in warning) == ([], False)


# --- placeholders ---


@each_of(
    "placeholder",
    [
        "changeme-changeme-changeme-changeme", "abc123" * 6, "${CLIENT_SECRET_OF_THE_WIKI_SERVICE}", "{{ .Values.oidc.wiki.clientSecret }}", "<the secret of the wiki goes here>",
        "$(openssl rand -hex 32) of the shell", "%{random_secret_of_the_terraform}",
        "your-client-secret-goes-here-00001", "insert-your-secret-here-0123456789",
    ],
)  # fmt: skip
def test_a_placeholder_is_no_secret_of_a_client(tmp_path: Path, run: Run, placeholder: str) -> None:
    """Refused in the environment, where clients are added, and as any other secret; never shown."""
    with pytest.raises(KeyFault, match="placeholder"):
        check_secret_strength(placeholder.encode())
    (fault,) = read(tmp_path, PYLON_DEV_MODE="1", PYLON_OIDC_CLIENTS=_clients(placeholder)).faults
    assert "client_secret: is a placeholder; " in fault.text
    run.have_database()
    metadata = json.dumps({"client_secret": placeholder})
    added = run("clients", "add", "--redirect-uri", CALLBACK, "--metadata", metadata)
    assert (added.exit_code, "placeholder" in added.stderr) == (2, True)
    assert placeholder not in fault.text + added.output


def test_a_random_secret_is_no_placeholder() -> None:
    """Whatever a random number generator writes, as hex or base64."""
    for _ in range(2000):
        check_secret_strength(os.urandom(32).hex().encode())
        check_secret_strength(base64.b64encode(os.urandom(32)))


# --- files ---


def _with_mode(path: Path, mode: int, text: str = "") -> str:
    if text:
        path.write_text(text)
    path.chmod(mode)
    return str(path)


@each_of("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_database_that_others_may_read_is_said(tmp_path: Path, run: Run, mode: int) -> None:
    """The older file is taken as it is, and a warning names what closes it; our own files are readable only by us."""
    assert run("migrate").exit_code == 0
    path = tmp_path / "data" / "pylon.db"
    assert "chmod" not in run("check").output
    _with_mode(path, mode)
    (line,) = [line for line in run("check").stdout.splitlines() if "chmod" in line]
    assert line.startswith("warning: ")
    assert f"chmod 600 {path}" in line and f"{mode:04o}" in line
    found = inspect({"DATABASE_URL": f"sqlite:///{path}"}, now=START)
    faults, warnings = found.faults, found.warnings
    assert faults == []
    assert any(warning.startswith("DATABASE_URL: ") and "chmod 600" in warning for warning in warnings)
    _with_mode(path, 0o600)  # as it was, for the next


def test_keys_import_minds_the_mode_of_its_file(tmp_path: Path, run: Run) -> None:
    """A private key that others may read is not taken into the ring; the words say how to close the file."""
    managed = {"PYLON_OIDC_KEYS": "managed", "PYLON_KEY_ENCRYPTION_KEY": SEALING}
    run.have_database()
    path = _with_mode(tmp_path / "key.pem", 0o644, rsa_pem())
    refused = run("keys", "import", path, **managed)
    assert (refused.exit_code, "chmod 600" in refused.stderr) == (1, True)
    assert f"cat {path} | pylon-oidc keys import /dev/stdin" in refused.stderr
    environ = clean_environment(PYLON_DATA_DIR=str(tmp_path / "data"), **managed)
    command = f"cat {path} | {sys.executable} -m service keys import /dev/stdin"
    piped = subprocess.run(
        ["sh", "-c", command], env=environ, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (piped.returncode, piped.stdout) == (0, "RS256: " + piped.stdout.split()[1] + " is active.\n"), (
        piped.stderr
    )
    command = f"printf %s {STRONG} | {sys.executable} -m service clients add --redirect-uri {CALLBACK} --secret-file -"
    piped = subprocess.run(
        ["sh", "-c", command], env=environ, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (piped.returncode, piped.stderr) == (0, "")
    _with_mode(Path(path), 0o600)
    assert run("keys", "import", path, "--kid", "again", **managed).exit_code == 0


def test_a_client_s_secret_comes_from_a_file(tmp_path: Path, run: Run) -> None:
    """`clients add --secret-file`: no secret on a command line, where others see it; one newline at its end is dropped."""
    run.have_database()

    def add(text: bytes, *more: str, mode: int = 0o600) -> Any:
        path = tmp_path / "secret"
        path.write_bytes(text)
        path.chmod(mode)
        return run("clients", "add", "--redirect-uri", CALLBACK, "--secret-file", str(path), *more)

    for number, ending in enumerate(("", "\n", "\r\n")):
        added = add(f"{STRONG}{ending}".encode(), "--client-id", f"c-{number}")
        assert (added.exit_code, added.stdout.split()) == (0, ["client_id", f"c-{number}"])
        assert STRONG not in added.output and added.stderr == ""
        store = SqlStore(SqliteDatabase(tmp_path / "data" / "pylon.db"))
        client = Clients([], store, minted_audience=None).find(f"c-{number}", now=START)
        store.close()
        assert client is not None and client.has_secret(STRONG, now=START)
    assert "chmod 600" in add(STRONG.encode(), mode=0o644).stderr
    for text, more in (
        (b"short", ()), (f" {STRONG}".encode(), ()), (f"{STRONG}\n\n".encode(), ()), (b"\xff" * 40, ()),
        (STRONG.encode(), ("--public",)), (STRONG.encode(), ("--metadata", json.dumps({"client_secret": OTHER}))),
    ):  # fmt: skip
        refused = add(text, *more)
        assert refused.exit_code == 2, text
        assert STRONG not in refused.output
    missing = run("clients", "add", "--redirect-uri", CALLBACK, "--secret-file", str(tmp_path / "none"))
    assert (missing.exit_code, "none" in missing.stderr) == (2, True)


def test_a_database_that_others_may_read_hides_no_fault(tmp_path: Path, run: Run) -> None:
    """The warning is shown together with what is wrong in the database itself; so is a schema that is ahead."""
    run.have_database()
    path = tmp_path / "data" / "pylon.db"
    path.chmod(0o644)
    assert run("clients", "add", "--redirect-uri", CALLBACK).exit_code == 0
    asymmetric = {"PYLON_JWT_ALG": "RS256", "PYLON_OIDC_PRIVATE_KEY": rsa_pem()}
    told = run("check", **asymmetric)
    assert (told.exit_code, "chmod 600" in told.stdout) == (2, True)
    assert told.stderr.startswith("PYLON_JWT_AUDIENCE: ")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    assert "schema is ahead" in run("check", "--json").stdout
    started = prepare({"PYLON_DATA_DIR": str(tmp_path / "data")}, clock=time.time)
    assert [each for each in started.warnings if "schema is ahead" in each]
