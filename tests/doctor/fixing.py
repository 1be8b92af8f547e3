"""Applies a finding's fix to the text of a file, as an operator does who reads `file`, `block` and `line`.

It knows the syntaxes of the files and no finding. The rules:

- `block` is the opening of a block without its brace or brackets, outer ones first, joined by ` > `; empty is the top of
  the file. Where several blocks open alike, those that set the directive already are meant, else the first.
- `line` takes the place of every directive in that block that sets the same thing, else it becomes the block's first.
- In a Caddyfile the first word of a block that has arguments may stand for it.
- `- NAME` and `- NAME ARGUMENT` remove every directive in that block that begins with these words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: Directives that set one thing for each first argument; any other sets one thing for each block.
_BY_FIRST_ARGUMENT = frozenset(
    {"add_header", "include", "limit_req", "limit_conn", "proxy_hide_header", "proxy_set_header", "set"}
    | {"proxypass", "proxypassmatch", "errordocument", "server", "unset"}
    | {"header", "header_up", "header_down"}
)
#: A block is recognised by all of its arguments.
_BY_ALL_ARGUMENTS = frozenset(
    {"location", "locationmatch", "map", "upstream", "limit_except", "if", "respond", "handle", "uri", "sub"}
)
_APACHE_ACTIONS = frozenset(
    {"always", "onsuccess", "set", "unset", "add", "append", "merge", "edit", "edit*", "setifempty"}
)
_INDENT = "    "


class DoesNotFit(AssertionError):
    """A fix that names what is not there, or that changes nothing."""


@dataclass
class Directive:
    """One directive and where it stands; a block has what is in it.

    Attributes:
        words: Its name and its arguments.
        start, end: Its place in the text, the end of its line excluded.
        inside: Where what is in it begins; `None` for what is no block.
        children: What is in it.
    """

    words: list[str]
    start: int
    end: int
    inside: int | None = None
    children: list[Directive] = field(default_factory=list)

    @property
    def opening(self) -> str:
        """The text before its brace, or between its brackets."""
        return " ".join(self.words)


def _parse_nginx(text: str) -> list[Directive]:
    """Words, strings, `;`, braces and comments (nginx's ngx_conf_file.c)."""
    top = Directive([], 0, len(text), 0)
    open_blocks, words, start = [top], [], 0
    for token in re.finditer(r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|[^\s{};]+""", text):
        value = token.group()
        if value.startswith("#") and not words:
            continue
        if value not in {"{", "}", ";"}:
            start = token.start() if not words else start
            words.append(value)
            continue
        if value == "}":
            open_blocks.pop().end = token.end()
            continue
        found = Directive(words, start, token.end(), token.end() if value == "{" else None)
        open_blocks[-1].children.append(found)
        words = []
        if value == "{":
            open_blocks.append(found)
    return top.children


def _parse_apache(text: str) -> list[Directive]:
    """A directive a line, and `<Name arguments>` … `</Name>`."""
    top = Directive([], 0, len(text), 0)
    open_blocks = [top]
    for line in re.finditer(r"^[ \t]*(\S[^\n]*)$", text, re.MULTILINE):
        value, start, end = line[1].strip(), line.start(1), line.end(1)
        if value.startswith("#"):
            continue
        if value.startswith("</"):
            open_blocks.pop().end = end
        elif value.startswith("<"):
            found = Directive(value.strip("<>").split(), start, end, end)
            open_blocks[-1].children.append(found)
            open_blocks.append(found)
        else:
            open_blocks[-1].children.append(Directive(value.split(), start, end))
    return top.children


def _parse_sections(text: str, is_opening: Callable[[str], bool], separator: str | None) -> list[Directive]:
    """A directive a line, in sections that the next one ends."""
    found: list[Directive] = []
    into = found
    for line in re.finditer(r"^[ \t]*(\S[^\n]*)$", text, re.MULTILINE):
        value, start, end = line[1].strip(), line.start(1), line.end(1)
        if value.startswith("#"):
            continue
        if is_opening(line.group()):
            section = Directive(value.strip("[]").split(), start, end, end)
            found.append(section)
            into = section.children
        else:
            words = value.split(separator, 1) if separator else value.split()
            into.append(Directive([word.strip() for word in words], start, end))
    return found


def _parse_haproxy(text: str) -> list[Directive]:
    return _parse_sections(text, lambda line: not line[0].isspace(), None)


def _parse_ini(text: str) -> list[Directive]:
    return _parse_sections(text, lambda line: line.lstrip().startswith("["), "=")


def _parse_settings(text: str) -> list[Directive]:
    return _parse_sections(text, lambda _: False, "=")


def _parse_caddy(text: str) -> list[Directive]:
    """A directive a line, and blocks whose opening brace ends it (Caddy's caddyfile/lexer.go, as far as it is used)."""
    top = Directive([], 0, len(text), 0)
    open_blocks = [top]
    for line in re.finditer(r"^[ \t]*(\S[^\n]*)$", text, re.MULTILINE):
        value, start, end = line[1].strip(), line.start(1), line.end(1)
        if value.startswith("#"):
            continue
        if value == "}":
            open_blocks.pop().end = end
        elif value.endswith("{"):
            found = Directive(value[:-1].split(), start, end, end)
            open_blocks[-1].children.append(found)
            open_blocks.append(found)
        else:
            open_blocks[-1].children.append(Directive(value.split(), start, end))
    return top.children


def _syntax(file: str) -> Callable[[str], list[Directive]]:
    if file.endswith("/env"):
        return _parse_settings
    if file.startswith("/etc/systemd/"):
        return _parse_ini
    if file.startswith("/etc/apache2/"):
        return _parse_apache
    if file.endswith("Caddyfile"):
        return _parse_caddy
    return _parse_haproxy if file.endswith(".cfg") else _parse_nginx


def _subject(words: Sequence[str], block: Sequence[str]) -> tuple[str, ...]:
    """What a directive sets: two that set the same cannot both be meant."""
    name, *arguments = (word.lower() for word in words)
    if name in _BY_ALL_ARGUMENTS:
        return (name, *arguments)
    if name in {"header", "requestheader"} and arguments[:1] and arguments[0] in _APACHE_ACTIONS:
        return (name, *[word for word in arguments if word not in _APACHE_ACTIONS][:1])
    if name in {"http-request", "http-response"}:
        # Headers are set; everything else is one rule of many.
        return (name, *(arguments[:2] if arguments[0].endswith("-header") else arguments))
    # nginx's servers of an upstream are one list; HAProxy's have names.
    if name in _BY_FIRST_ARGUMENT and not (name == "server" and block[:1] == ["upstream"]):
        return (name, *arguments[:1])
    return (name,)


def _blocks(top: Directive, path: Sequence[str], *, is_caddy: bool = False) -> list[Directive]:
    """The blocks with these openings, outer ones first."""
    found = [top]
    for opening in path:
        wanted = opening.split()
        found = [
            child
            for block in found
            for child in block.children
            if child.inside and (child.words == wanted or (is_caddy and child.words[:1] == wanted))
        ]
    return found


def fix_text(file: str, text: str, block: str, line: str) -> str:
    """Apply a fix.

    Args:
        file: The file's name, which tells its syntax.
        text: What is in it.
        block: Where in it.
        line: The line.

    Returns:
        What is in it afterwards.

    Raises:
        DoesNotFit: When the block is not there, or the text stays as it was.
    """
    parse = _syntax(file)
    if line.startswith("- "):
        after = _fixed(file, text, block, line[2:].split(), None)
    else:
        after = text
        for directive in parse(line):
            written = line[directive.start : directive.end]
            after = _fixed(file, after, block, directive.words, written)
    if after == text:
        raise DoesNotFit(f"{file}: {line!r} in {block!r} changes nothing")
    return after


def _fixed(file: str, text: str, block: str, words: list[str], written: str | None) -> str:
    """One directive set, or, without anything to write, removed."""
    top = Directive([], 0, len(text), 0, _syntax(file)(text))
    blocks = _blocks(top, block.split(" > ") if block else [], is_caddy=file.endswith("Caddyfile"))
    if not blocks:
        raise DoesNotFit(f"{file} has no block {block!r}")

    def is_meant(directive: Directive, inside: Directive) -> bool:
        if written is None:
            # Apache's `edit*` is `edit`, more than once.
            named = [word.lower().removesuffix("*") for word in directive.words[: len(words)]]
            return named == [word.lower().removesuffix("*") for word in words] or [
                word.lower() for word in directive.words[: len(words)]
            ] == [w.lower() for w in words]
        return _subject(directive.words, inside.words) == _subject(words, inside.words)

    meant = [child for each in blocks for child in each.children if is_meant(child, each)]
    if not meant:
        return text if written is None else _inserted(text, blocks[0], written)
    for directive in reversed(meant):
        # The first stays where it stood; a second one that sets the same would be refused, or counted twice.
        instead = written if written is not None and directive is meant[0] else ""
        text = text[: directive.start] + instead + text[directive.end :]
    return text


def _inserted(text: str, block: Directive, written: str) -> str:
    """Put it before everything else in the block."""
    assert block.inside is not None
    if not block.words:
        return f"{written}\n{text}"
    opened_at = text.rfind("\n", 0, block.start) + 1
    indent = " " * (block.start - opened_at) + _INDENT
    return f"{text[: block.inside]}\n{indent}{written}{text[block.inside :]}"
