"""The possible findings and their fixes: the files of `findings/`, read once.

A table of a file is a finding; its id is the table's name and is used in links, so it never changes. `{url}`, `{origin}`,
`{authority}`, `{path}`, `{name}`, `{endpoint}` and the like are filled in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

#: The proxies that findings have lines for.
PROXIES: Final = ("nginx", "apache", "haproxy", "caddy", "traefik", "aws-alb", "varnish")
DOCS: Final = "docs/doctor/{id}.md"


@dataclass(frozen=True)
class Fix:
    """One line that fixes a finding.

    Attributes:
        proxy: which program it configures: one of `PROXIES`, or `setting`, `system`, `dns`.
        file: the file it belongs in; empty if the line is a command to run.
        block: the opening line of its block, outer ones first, joined by ` > `; empty for the top of the file.
        line: the line; it replaces the line that sets the same thing. `- x` removes every line that starts with x.
        tested: whether a test applies it.
        variant: the case of the finding that it fixes; empty for any.
        never: the cases in which it would not help.
    """

    proxy: str
    file: str
    block: str
    line: str
    tested: bool
    variant: str = ""
    never: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A possible finding.

    Attributes:
        id: its name, which never changes.
        severity: `error`, `warning` or `note`.
        title: a summary in one line.
        symptoms: the messages that relying parties and people report.
        cause: why it happens.
        cases: the causes of single cases, by variant.
        noted: the cases in which it is only a note.
        expected: what doctor should have seen.
        verify: a command that shows whether it is fixed.
        fixes: by proxy; the first that fits is tried first.
    """

    id: str
    severity: str
    title: str
    symptoms: tuple[str, ...]
    cause: str
    expected: str
    verify: str
    fixes: tuple[Fix, ...]
    cases: Mapping[str, str] = field(default_factory=dict)
    noted: tuple[str, ...] = ()


@cache
def kinds() -> Mapping[str, Kind]:
    """All possible findings, by id, in the order of the files."""
    files = sorted(Path(__file__).with_name("findings").glob("*.toml"))
    tables = [tomllib.loads(file.read_text("utf-8")) for file in files]
    return {name: _kind(name, table) for of_file in tables for name, table in of_file.items()}


def _kind(name: str, table: dict[str, Any]) -> Kind:
    fixes = tuple(Fix(**fix | {"never": tuple(fix.get("never", ()))}) for fix in table.pop("fixes"))
    symptoms, noted = tuple(table.pop("symptoms")), tuple(table.pop("noted", ()))
    return Kind(id=name, symptoms=symptoms, noted=noted, fixes=fixes, **table)


@dataclass(frozen=True)
class Finding:
    """A finding.

    Attributes:
        kind: its entry in the catalogue.
        seen: what doctor saw, in printable characters.
        values: the values of `{url}` and the other placeholders in its texts.
        variant: which case of the kind it is.
        follows_from: the id of the finding that causes it; empty for a cause.
    """

    kind: Kind
    seen: str
    values: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    follows_from: str = ""

    @property
    def severity(self) -> str:
        """The severity in this case."""
        return "note" if self.variant and self.variant in self.kind.noted else self.kind.severity

    @property
    def cause(self) -> str:
        """The cause in this case."""
        return self.kind.cases.get(self.variant, self.kind.cause)

    def filled(self, text: str) -> str:
        """A text of the kind, with its placeholders filled in."""
        for name, value in self.values.items():
            text = text.replace("{" + name + "}", value)
        return text

    def fixes(self) -> Sequence[Fix]:
        """The fixes of this case, with their placeholders filled in."""
        return [
            replace(
                fix,
                file=self.filled(fix.file),
                block=self.filled(fix.block),
                line=self.filled(fix.line),
            )
            for fix in self.kind.fixes
            if fix.variant in {"", self.variant} and self.variant not in fix.never
        ]


def shown(text: object, most: int = 160) -> str:
    """Text from a server, made safe for a terminal and a page: printable, and limited in length.

    Args:
        text: what the server sent.
        most: the most characters.
    """
    printable = "".join(char if char.isprintable() else "?" for char in str(text)[: most + 1])
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def counted(number: int, what: str) -> str:
    """A number and its noun: `1 day`, `2 days`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
