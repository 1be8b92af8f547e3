"""What may be found, and how it is fixed: `findings.toml`, read once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

DOCS: Final = "docs/doctor/{id}.md"


@dataclass(frozen=True)
class Fix:
    """One line that fixes a finding.

    Attributes:
        proxy: what it is for: `nginx`, `apache`, `haproxy`, `caddy`, `traefik`, `aws-alb`, `setting`, `system`, `dns`.
        file: which file it goes into; empty when the line is a command to run.
        block: the opening of the block in it, outer ones first, joined by ` > `; empty for the top of the file.
        line: the line; it takes the place of what sets the same thing. `- x` removes what begins with x.
        tested: whether a test applies it.
        variant: which case of the finding it is for; empty for any.
    """

    proxy: str
    file: str
    block: str
    line: str
    tested: bool
    variant: str = ""


@dataclass(frozen=True)
class Kind:
    """What may be found.

    Attributes:
        id: its name, which stays.
        severity: `error`, `warning` or `note`.
        title: it in one line.
        symptoms: what relying parties and people say.
        cause: why it happens.
        expected: what should have been seen.
        verify: a command that shows whether it is fixed.
        fixes: by proxy; the first that fits is the one to try.
    """

    id: str
    severity: str
    title: str
    symptoms: tuple[str, ...]
    cause: str
    expected: str
    verify: str
    fixes: tuple[Fix, ...]


@cache
def kinds() -> Mapping[str, Kind]:
    """All that may be found, by id, in the order of the file."""
    tables: dict[str, Any] = tomllib.loads(Path(__file__).with_name("findings.toml").read_text("utf-8"))
    return {name: _kind(name, table) for name, table in tables.items()}


def _kind(name: str, table: dict[str, Any]) -> Kind:
    fixes = tuple(Fix(**fix) for fix in table.pop("fixes"))
    return Kind(id=name, symptoms=tuple(table.pop("symptoms")), fixes=fixes, **table)


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        kind: what it is.
        seen: what was seen, printable.
        values: what stands for `{url}` and the like in its texts.
        variant: which case of the kind it is.
        follows_from: the id of the finding that it is a consequence of; empty for a cause.
    """

    kind: Kind
    seen: str
    values: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    follows_from: str = ""

    def filled(self, text: str) -> str:
        """A text of the kind with what was seen in it."""
        for name, value in self.values.items():
            text = text.replace("{" + name + "}", value)
        return text

    def fixes(self) -> Sequence[Fix]:
        """The fixes of this case, filled in."""
        return [
            replace(
                fix,
                file=self.filled(fix.file),
                block=self.filled(fix.block),
                line=self.filled(fix.line),
            )
            for fix in self.kind.fixes
            if fix.variant in {"", self.variant}
        ]


def shown(text: object, most: int = 160) -> str:
    """What a server sent, made harmless for a terminal and a page: printable, and not longer than that.

    Args:
        text: what it sent.
        most: characters.
    """
    printable = "".join(char if char.isprintable() else "?" for char in str(text)[: most + 1])
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def counted(number: int, what: str) -> str:
    """A number of things: `1 day`, `2 days`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
