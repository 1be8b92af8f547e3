"""A server that means harm makes `doctor` end in time, with a finding, and it has asked only for what it was asked to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from tests.doctor.asking import ask_doctor
from tests.doctor.hostile import HARM, HostileServer, Listener
from tests.support.pace import in_time

_TIMEOUT_S = 2
#: Python, and what was under way when the time ran out.
_GRACE_S = 2.0
_MOST_REQUESTS = 120
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("kind", HARM)
def test_harm_ends_in_time_with_a_finding(kind: str) -> None:
    """docs/cli.md: it ends in time with a finding, is polite, and never follows where it was not sent."""
    with Listener() as trap, HostileServer(HARM[kind], trap) as server:
        report = ask_doctor(server.origin, ["--timeout", str(_TIMEOUT_S)])
        assert report.faults, report.findings
        assert report.exit_code in {1, 2}
        assert in_time(report.duration_s, _TIMEOUT_S + _GRACE_S)
        assert trap.asked == []
        assert 0 < len(server.asked) < _MOST_REQUESTS
        assert all(re.fullmatch(r"|(GET|HEAD|POST|OPTIONS|PUT|DELETE) /\S*", each) for each in server.asked)


@pytest.mark.parametrize("kind", ["control characters", "control characters in headers", "markup"])
def test_what_it_said_is_shown_without_harm(kind: str, tmp_path: Path) -> None:
    """Neither the terminal nor the page takes a hostile server's text for its own."""
    page = tmp_path / "page.html"
    with Listener() as trap, HostileServer(HARM[kind], trap) as server:
        result = CliRunner().invoke(
            main, ["doctor", server.origin, "--timeout", str(_TIMEOUT_S), "--html", str(page)]
        )
    assert result.exit_code in {1, 2}, result.output
    assert not _CONTROL.search(result.output.replace("\r\n", "\n"))
    text = page.read_text()
    assert "<script>alert" not in text
    assert not _CONTROL.search(text)
