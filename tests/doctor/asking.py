"""`pylon-oidc doctor`, run by tests as an operator runs it, and what it reports."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from service.cli import main
from tests.doctor.deployment import Mend


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

    def mend(self, proxy: str) -> Mend:
        """How the first finding is mended, where this proxy stands in front."""
        given = self.findings[0]["mend"]
        others = {each["proxy"]: each for each in self.findings[0].get("alternatives", [])}
        meant = others.get(proxy, given)
        return Mend(meant["file"], meant["block"], meant["line"])


def ask_doctor(url: str, options: Sequence[str]) -> Report:
    """Run the command in this process.

    Args:
        url: What to ask for.
        options: Its options but `--json`.

    Raises:
        AssertionError: When it prints no JSON object, or fails with an exception.
    """
    begin = time.monotonic()
    result = CliRunner().invoke(main, ["doctor", url, "--json", *options])
    duration_s = time.monotonic() - begin
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"doctor failed: {result.output}") from result.exception
    try:
        whole = json.loads(result.stdout)
    except ValueError:
        raise AssertionError(f"doctor printed no JSON, exit {result.exit_code}: {result.output}") from None
    return Report(result.exit_code, whole, duration_s)
