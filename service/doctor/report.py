"""Findings as JSON, as a table for a terminal, and as a page to attach to a ticket."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from service.doctor.catalogue import DOCS, Finding, Fix, counted, shown

_COLOURS: Final = {"error": "red", "warning": "yellow", "note": "blue"}
_LABEL: Final = 10


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        url: the address that was asked for.
        issuer: what its document names, printable; None without one.
        proxy: what stands in front, as far as its answers tell; `nginx` where they do not.
        checked: how many questions were answered.
        findings: in their order.
        at: Unix s.
    """

    url: str
    issuer: str | None
    proxy: str
    checked: int
    findings: Sequence[Finding]
    at: int

    @property
    def is_well(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.kind.severity == "note" for finding in self.findings)

    def fixes(self, finding: Finding) -> list[Fix]:
        """The fixes of a finding, that for the proxy in front first."""
        return sorted(finding.fixes(), key=lambda fix: fix.proxy not in {self.proxy, "setting", "system"})

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        findings = [self._as_json(finding) for finding in self.findings]
        return {"url": self.url, "issuer": self.issuer, "checked": self.checked, "findings": findings}

    def _as_json(self, finding: Finding) -> dict[str, Any]:
        fixes = self.fixes(finding)
        first = fixes[0] if fixes else None
        told: dict[str, Any] = {
            "id": finding.kind.id,
            "severity": finding.kind.severity,
            "title": finding.kind.title,
            "seen": finding.seen,
            "expected": finding.filled(finding.kind.expected),
            "fix": first and {"file": first.file, "block": first.block, "line": first.line},
            "docs": DOCS.format(id=finding.kind.id),
        }
        if others := fixes[1:]:
            told["alternatives"] = [
                {"proxy": m.proxy, "file": m.file, "block": m.block, "line": m.line, "tested": m.tested}
                for m in others
            ]
        return told | ({"follows_from": finding.follows_from} if finding.follows_from else {})

    def verdict(self) -> str:
        """All of it in one line."""
        causes = [finding.kind.severity for finding in self.findings if not finding.follows_from]
        parts = [counted(number, severity) for severity in _COLOURS if (number := causes.count(severity))]
        return ", ".join(parts) if parts else "Nothing to fix."

    def as_text(self, width: int) -> Iterator[str]:
        """The lines for a terminal; colours are click's, which leaves them out where nobody sees them.

        Args:
            width: columns.
        """
        yield f"{click.style(self.url, bold=True)}  issuer {shown(self.issuer or 'none')}"
        for finding in self.findings:
            yield ""
            yield from self._finding_as_text(finding, max(40, min(width, 110)))
        yield ""
        yield click.style(self.verdict(), bold=True, fg="green" if self.is_well else None)

    def _finding_as_text(self, finding: Finding, width: int) -> Iterator[str]:
        kind = finding.kind
        label = click.style(kind.severity.ljust(_LABEL), fg=_COLOURS[kind.severity], bold=True)
        if finding.follows_from:
            yield f"  {click.style('└ ' + kind.title, dim=True)} (follows from {finding.follows_from})"
            return
        first, *more = textwrap.wrap(kind.title, width - _LABEL) or [""]
        yield label + click.style(first, bold=True)
        for line in more:
            yield " " * _LABEL + click.style(line, bold=True)
        rows = [("seen", finding.seen), ("expected", finding.filled(kind.expected)), ("because", kind.cause)]
        for name, text in rows:
            for number, line in enumerate(textwrap.wrap(text, width - 2 * _LABEL - 2)):
                yield " " * _LABEL + (name if number == 0 else "").ljust(_LABEL) + line
        for fix in self.fixes(finding)[:1]:
            place = f"{fix.file}, in {fix.block}" if fix.block else fix.file or "run"
            yield " " * _LABEL + "fix".ljust(_LABEL) + place
            yield " " * 2 * _LABEL + click.style(_said(fix.line), fg="green")
        yield " " * _LABEL + "more".ljust(_LABEL) + DOCS.format(id=kind.id)

    def as_page(self) -> str:
        """One HTML page that needs nothing else."""
        from jinja2 import Environment, StrictUndefined

        text = Path(__file__).with_name("report.html").read_text("utf-8")
        template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
        return template.render(report=self, said=_said, docs=DOCS)


def _said(line: str) -> str:
    return f"remove: {line[2:]}" if line.startswith("- ") else line
