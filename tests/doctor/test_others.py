"""Providers that are not ours: what `doctor` says of them is true, and speaks of no setting of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doctor.asking import ask_doctor
from tests.doctor.peer import CLIENT, REDIRECT_URI, run_peer


@pytest.fixture(scope="module")
def peer_port() -> Iterator[int]:
    """The port of npm `oidc-provider`, running."""
    with run_peer() as port:
        yield port


def test_nothing_is_wrong_with_a_provider_that_is_well(peer_port: int) -> None:
    """docs/cli.md: no crash, no false error against npm `oidc-provider`."""
    issuer = f"http://localhost:{peer_port}"
    report = ask_doctor(issuer, ["--client-id", CLIENT, "--redirect-uri", REDIRECT_URI])
    assert report.faults == []
    assert report.whole["issuer"] == issuer
    assert report.exit_code == 0


def test_another_name_than_the_issuer_s_is_told(peer_port: int) -> None:
    """Asked by a name that is not its issuer's, the first finding shows both, as a relying party would meet it."""
    report = ask_doctor(f"http://127.0.0.1:{peer_port}", [])
    first = report.findings[0]
    assert first["severity"] == "error"
    assert f"http://localhost:{peer_port}" in first["seen"]
    assert f"http://127.0.0.1:{peer_port}" in first["expected"]
    assert report.exit_code == 1
