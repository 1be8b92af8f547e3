"""`pylon-oidc check --url`: what this configuration would answer, compared with what the public address answers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from bench.servers import Granian
from tests.support.gunicorn import PROJECT, Gunicorn, clean_environment, rsa_pem

ISSUER = "http://localhost:{port}"


@pytest.fixture(scope="module")
def server() -> Iterator[Gunicorn]:
    """A service at the address of its issuer."""
    with Gunicorn(PYLON_OIDC_ISSUER=ISSUER, PYLON_OIDC_PRIVATE_KEY=rsa_pem(), WEB_CONCURRENCY="1") as running:
        yield running


def check(server: Gunicorn, folder: Path, url: str = "", **settings: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object printed, and stderr."""
    environment = server.environment | {"PYLON_DATA_DIR": str(folder)} | settings
    done = subprocess.run(
        [sys.executable, "-m", "service", "check", "--json", "--url", url or f"http://localhost:{server.port}"],
        cwd=PROJECT, env=clean_environment(**environment), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_the_same_configuration_differs_in_nothing(server: Gunicorn, tmp_path: Path) -> None:
    """docs/cli.md: the inside view compared with the outside one; exit 0 when they are equal."""
    code, told, _ = check(server, tmp_path)
    assert (code, told["differences"]) == (0, [])


def test_another_issuer_and_key_are_told_beside_each_other(server: Gunicorn, tmp_path: Path) -> None:
    """Each difference says what this process would answer, and what the address does: exit 1."""
    other = {"PYLON_OIDC_ISSUER": "https://id.example.com", "PYLON_OIDC_PRIVATE_KEY": rsa_pem(number=1)}
    code, told, _ = check(server, tmp_path, **other)
    found = {each["what"]: each for each in told["differences"]}
    assert code == 1
    assert found["discovery: issuer"]["inside"] == "https://id.example.com"
    assert found["discovery: issuer"]["outside"] == f"http://localhost:{server.port}"
    assert "jwks: kid" in found


def test_a_server_that_hands_on_no_raw_path_is_named(tmp_path: Path) -> None:
    """PEP 3333 asks for no raw path: granian gives none, so another spelling is answered; readiness tells it too."""
    settings = {"PYLON_DEV_MODE": "1", "PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_DATA_DIR": str(tmp_path)}
    server = Granian(settings)
    try:
        url = f"http://localhost:{server.port}"
        done = subprocess.run(
            [sys.executable, "-m", "service", "check", "--json", "--url", url],
            cwd=PROJECT, env=clean_environment(**settings), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        told = json.loads(done.stdout)
        assert [each["what"] for each in told["differences"]] == [
            "GET /%6Fidc/jwks, another spelling of a path"
        ]
        assert any("granian" in note for note in told["notes"])
        with urlopen(f"{url}/readyz", timeout=10) as answer:
            assert json.loads(answer.read())["raw_path"] == "not passed by this server"
    finally:
        server.stop()


def test_an_address_that_answers_nothing_is_told(server: Gunicorn, tmp_path: Path) -> None:
    """Without a document there is nothing to compare: exit 2, and the report says why."""
    code, _, stderr = check(server, tmp_path, url=f"http://localhost:{server.port}/nothing")
    assert code == 2
    assert "pylon-oidc doctor" in stderr


def test_a_ring_of_managed_keys_is_compared_as_it_is_now(tmp_path: Path) -> None:
    """The keys of the ring are those that the address publishes; an empty ring is not a difference, because the start fills it."""
    settings = {
        "PYLON_OIDC_KEYS": "managed",
        "PYLON_OIDC_ALGS": "RS256,ES256",
        "PYLON_KEY_ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
        "PYLON_JWT_ALG": "RS256",
    }
    with Gunicorn(PYLON_OIDC_ISSUER=ISSUER, WEB_CONCURRENCY="1", **settings) as server:
        code, told, _ = check(server, server.data_dir)
        assert (code, told["differences"]) == (0, [])
        code, told, _ = check(server, tmp_path)
        assert (code, told["differences"]) == (0, [])


def test_a_key_that_was_published_a_moment_ago_is_a_note(tmp_path: Path) -> None:
    """Caches outside may hold the earlier key set for 360 s: what only has to be waited for is exit 0."""
    sealing = base64.b64encode(bytes(range(32))).decode()
    keys = {"PYLON_OIDC_KEYS": "managed", "PYLON_KEY_ENCRYPTION_KEY": sealing, "WEB_CONCURRENCY": "1"}
    with Gunicorn(PYLON_OIDC_ISSUER=ISSUER, **keys) as server:
        folder = Path(server.environment["PYLON_DATA_DIR"])
        rotated = subprocess.run(
            [sys.executable, "-m", "service", "keys", "rotate", "--compromised", "--alg", "RS256"],
            cwd=PROJECT, env=clean_environment(**server.environment), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert rotated.returncode == 0, rotated.stderr
        code, told, _ = check(server, folder)
        assert (code, told["differences"]) == (0, [])
        assert [note for note in told["notes"] if "outside within 360 s" in note]
