"""Findings as JSON, as a table for a terminal, and as a page to attach to a ticket."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from service.doctor.catalogue import DOCS, PROXIES, Finding, Fix, counted, shown

_COLOURS: Final = {"error": "red", "warning": "yellow", "note": "blue"}
_LABEL: Final = 10


@dataclass(frozen=True)
class Report:
    """The result of a run.

    Attributes:
        url: the tested address.
        issuer: the issuer in its document, printable; None without one.
        proxy: the proxy in front, as the operator says; None if unknown.
        seen: the programs in between, if the answers show them.
        checked: the number of answered requests.
        findings: in their order.
        at: Unix s.
    """

    url: str
    issuer: str | None
    proxy: str | None
    seen: Sequence[str]
    checked: int
    findings: Sequence[Finding]
    at: int

    @property
    def is_well(self) -> bool:
        """Whether there are only notes."""
        return all(finding.severity == "note" for finding in self.findings)

    def fixes(self, finding: Finding) -> list[Fix]:
        """The fixes of a finding for the proxy in front; for every proxy if that is not known."""
        return [fix for fix in self._all(finding) if self._is_here(fix)]

    def others(self, finding: Finding) -> list[Fix]:
        """The fixes for other proxies, as far as that is known."""
        return [fix for fix in self._all(finding) if not self._is_here(fix)]

    def _all(self, finding: Finding) -> list[Fix]:
        """First the fix for a cache, because it is the nearest to the service; then that for the proxy in front."""
        order = [*(name for name in self.seen if name == "varnish"), self.proxy, *self.seen, "nginx"]
        places = {name: place for place, name in reversed(list(enumerate(order)))}
        return sorted(
            finding.fixes(), key=lambda fix: 0 if fix.proxy not in PROXIES else places.get(fix.proxy, 99)
        )

    def _is_here(self, fix: Fix) -> bool:
        return self.proxy is None or fix.proxy not in PROXIES or fix.proxy in {self.proxy, *self._caches()}

    def _caches(self) -> set[str]:
        return {"varnish"} & set(self.seen)

    def no_fix(self, finding: Finding) -> str:
        """Why there is no line; empty if there is one."""
        if self.fixes(finding):
            return ""
        if self.others(finding):
            return f"doctor has no line for {self.proxy}"
        return "no single line fixes this: the cause can be in several places"

    def as_json(self) -> dict[str, Any]:
        """The object for `--json`."""
        findings = [self._as_json(finding) for finding in self.findings]
        return {"url": self.url, "issuer": self.issuer, "checked": self.checked, "findings": findings}

    def _as_json(self, finding: Finding) -> dict[str, Any]:
        fixes = self.fixes(finding)
        first = fixes[0] if fixes else None
        others = [*fixes[1:], *self.others(finding)]
        told: dict[str, Any] = {
            "id": finding.kind.id,
            "severity": finding.severity,
            "title": finding.kind.title,
            "seen": finding.seen,
            "expected": finding.filled(finding.kind.expected),
            "fix": first and {"file": first.file, "block": first.block, "line": first.line},
            "docs": DOCS.format(id=finding.kind.id),
        }
        if first is None and finding.severity != "note":
            told["no_fix"] = self.no_fix(finding)
        if others:
            told["alternatives"] = [
                {"proxy": m.proxy, "file": m.file, "block": m.block, "line": m.line, "tested": m.tested}
                for m in others
            ]
        return told | ({"follows_from": finding.follows_from} if finding.follows_from else {})

    def verdict(self) -> str:
        """A summary in one line."""
        causes = [finding.severity for finding in self.findings if not finding.follows_from]
        parts = [counted(number, severity) for severity in _COLOURS if (number := causes.count(severity))]
        return ", ".join(parts) if parts else "Nothing to fix."

    def as_text(self, width: int, height: int) -> Iterator[str]:
        """The lines for a terminal, with click's colours, which it leaves out if the output is not a terminal.

        Args:
            width: columns.
            height: lines: if all fixes fit, all are shown.
        """
        whole = list(self._as_text(width, most=99))
        yield from whole if len(whole) < height else self._as_text(width, most=1)

    def _as_text(self, width: int, *, most: int) -> Iterator[str]:
        yield f"{click.style(self.url, bold=True)}  issuer {shown(self.issuer or 'none')}"
        for finding in self.findings:
            yield ""
            yield from self._finding_as_text(finding, max(40, min(width, 110)), most=most)
        yield ""
        yield click.style(self.verdict(), bold=True, fg="green" if self.is_well else None)

    def _finding_as_text(self, finding: Finding, width: int, *, most: int) -> Iterator[str]:
        kind = finding.kind
        label = click.style(finding.severity.ljust(_LABEL), fg=_COLOURS[finding.severity], bold=True)
        if finding.follows_from:
            yield f"  {click.style('└ ' + kind.title, dim=True)} (follows from {finding.follows_from})"
            return
        first, *more = _wrapped(kind.title, width - _LABEL) or [""]
        yield label + click.style(first, bold=True)
        for line in more:
            yield " " * _LABEL + click.style(line, bold=True)
        rows = [
            ("seen", finding.seen),
            ("expected", finding.filled(kind.expected)),
            ("because", finding.filled(finding.cause)),
        ]
        for name, text in rows:
            for number, line in enumerate(_wrapped(text, width - 2 * _LABEL - 2)):
                yield " " * _LABEL + (name if number == 0 else "").ljust(_LABEL) + line
        if most == 1 or self.proxy is not None:
            fixes = self.fixes(finding)[:most]
        else:
            fixes = [*self.fixes(finding), *self.others(finding)][:most]
        for fix in fixes:
            place = f"{fix.file}, in {fix.block}" if fix.block else fix.file or "run"
            for number, line in enumerate(_wrapped(place, width - 2 * _LABEL, whole_words=True)):
                yield " " * _LABEL + ("" if number else "fix").ljust(_LABEL) + line
            for line in _said(fix.line).splitlines():
                yield " " * 2 * _LABEL + click.style(line, fg="green")
        if not fixes and finding.severity != "note":
            yield " " * _LABEL + "fix".ljust(_LABEL) + self.no_fix(finding)
        command = f"pylon-oidc doctor --explain {kind.id}"
        fits = 2 * _LABEL + len(command) <= width
        yield " " * _LABEL + ("more".ljust(_LABEL) + command if fits else command)

    def as_page(self) -> str:
        """One HTML page without other files."""
        from jinja2 import Environment, StrictUndefined

        text = Path(__file__).with_name("report.html").read_text("utf-8")
        template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
        return template.render(report=self, said=_said, docs=DOCS)


def _wrapped(text: str, width: int, *, whole_words: bool = False) -> list[str]:
    """Wrap a text. Names of files and headers stay in one piece, unless they are too long."""
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=not whole_words)


def _said(line: str) -> str:
    return f"remove: {line[2:]}" if line.startswith("- ") else line
