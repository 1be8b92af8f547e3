"""The pages of the documentation, read as far as the tests need: headings, tables, links, marked blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"^(?P<mark>```+|~~~+)[ ]*(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=mark)[ ]*$", re.M | re.S
)
_MARK = re.compile(r"<!-- (?P<kind>recipe|example): (?P<name>[\w.-]+) -->\n\Z")
_HEADING = re.compile(r"^(#{1,6}) +(.+?)[ #]*$", re.M)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
_CODE = re.compile(r"(`+)(.+?)\1")
_CELL_ENDS = re.compile(r"(?<!\\)\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")


def pages() -> dict[str, str]:
    """Every page, by its path under the project."""
    found = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]
    return {str(path.relative_to(PROJECT)): path.read_text(encoding="utf-8") for path in found}


def all_markdown() -> dict[str, str]:
    """Every page, and the Markdown files outside of `docs/`: what a repository shows, and the examples' own pages."""
    others = [PROJECT / "SECURITY.md", *sorted((PROJECT / "examples").rglob("*.md"))]
    return pages() | {
        str(path.relative_to(PROJECT)): path.read_text(encoding="utf-8")
        for path in others
        if not {".venv", "node_modules"} & set(path.parts)
    }


def page(name: str) -> str:
    """One page of `docs/`, or of the project's root, by its name."""
    below = PROJECT / "docs" / name
    return (below if below.exists() else PROJECT / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block that is marked by the comment right above it: `<!-- recipe: name -->`."""

    kind: str
    name: str
    language: str
    code: str


def blocks(text: str) -> dict[str, Block]:
    """The marked blocks of a page, by name.

    Raises:
        ValueError: When a name is used twice, or a mark is not directly above a block.
    """
    found: dict[str, Block] = {}
    marks = 0
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text[: match.start()])
        if mark is None:
            continue
        marks += 1
        found[mark["name"]] = Block(mark["kind"], mark["name"], match["language"], match["code"])
    if not marks == len(found) == len(re.findall(r"<!-- (?:recipe|example):", text)):
        raise ValueError("a mark is used twice, or has no block below it")
    return found


def headings(text: str) -> list[str]:
    """The headings, without their marks, in order."""
    return [match[2] for match in _HEADING.finditer(prose(text))]


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above.

    Raises:
        LookupError: When there is no such heading.
    """
    text = prose(text)
    found = [match for match in _HEADING.finditer(text) if match[2] == heading]
    if not found:
        raise LookupError(f"no heading {heading!r}")
    level, start = len(found[0][1]), found[0].end()
    later = (m.start() for m in _HEADING.finditer(text, start) if len(m[1]) <= level)
    return text[start : next(later, len(text))]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have, by the rule of GitHub."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings(text):
        plain = _LINK.sub(lambda link: link[0][1 : link[0].index("](")], heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(text: str) -> Iterator[str]:
    """The targets of a page's links, those in code left out."""
    return (match[1] for match in _LINK.finditer(_CODE.sub("", prose(text))))


def codes(text: str) -> list[str]:
    """The text in backticks, without fenced blocks."""
    return [match[2] for match in _CODE.finditer(prose(text))]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, header and rule left out, each as its cells."""
    found: list[list[str]] = []
    lines = prose(text).splitlines()
    for index, line in enumerate(lines):
        is_row = line.startswith("|") and not re.fullmatch(r"\|[ :|-]+\|", line)
        is_header = index + 1 < len(lines) and re.fullmatch(r"\|[ :|-]+\|", lines[index + 1])
        if is_row and not is_header:
            found.append([cell.strip() for cell in _CELL_ENDS.split(line)[1:-1]])
    return found


def first_codes(text: str) -> list[str]:
    """What the first cell of each table row has in backticks; rows whose first cell has none are left out."""
    return [code for row in rows(text) for code in codes(row[0])]
