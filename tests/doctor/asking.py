"""`pylon-oidc doctor`, run by tests as an operator runs it, and what it reports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from service.cli import main
from tests.doctor.deployment import Fix
from tests.doctor.running import CLIENT_SECRET
from tests.support.gunicorn import ADMIN


def assert_no_secret(text: str) -> None:
    """Neither what `doctor` was given nor what it got on the way: sessions, JWTs, codes, cookies."""
    assert ADMIN not in text
    assert CLIENT_SECRET not in text
    assert not re.search(r"pylon_[0-9a-f]{8}|\beyJ[\w-]{8}|[?&](code|interaction|verifier)=", text)


@dataclass(frozen=True)
class Report:
    """What `doctor` said.

    Attributes:
        exit_code: Of the command.
        whole: The object that it printed.
        duration_s: How long it took.
    """

    exit_code: int
    whole: dict[str, Any]
    duration_s: float

    @property
    def findings(self) -> list[dict[str, Any]]:
        """All that it found, in its order."""
        found: list[dict[str, Any]] = self.whole["findings"]
        return found

    @property
    def faults(self) -> list[str]:
        """What it found that is more than a note: severity, id and what was seen."""
        return [
            f"{each['severity']} {each['id']}: {each['seen']}"
            for each in self.findings
            if each["severity"] != "note"
        ]

    def fix(self) -> Fix:
        """How the first finding is fixed.

        Raises:
            AssertionError: When it names no line.
        """
        given = self.findings[0]["fix"]
        assert given is not None, self.findings[0]
        return Fix(given["file"], given["block"], given["line"])


def ask_doctor(url: str, options: Sequence[str]) -> Report:
    """Run the command in this process.

    Args:
        url: What to ask for.
        options: Its options but `--json`.

    Raises:
        AssertionError: When it prints no JSON object, or a secret, or fails with an exception.
    """
    begin = time.monotonic()
    result = CliRunner().invoke(main, ["doctor", url, "--json", *options])
    duration_s = time.monotonic() - begin
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"doctor failed: {result.output}") from result.exception
    assert_no_secret(result.output)
    try:
        whole = json.loads(result.stdout)
    except ValueError:
        raise AssertionError(f"doctor printed no JSON, exit {result.exit_code}: {result.output}") from None
    return Report(result.exit_code, whole, duration_s)
