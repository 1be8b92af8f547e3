"""docs/architecture.md draws every exception of the service, and what becomes of it."""

from __future__ import annotations

import ast
import builtins
import re

from tests.docs.markdown import PROJECT, page

_BUILT_IN = {name for name in dir(builtins) if isinstance(getattr(builtins, name), type)}


def exceptions(sources: list[str]) -> set[str]:
    """The classes that are exceptions, by their bases; those that are private to a file left out."""
    bases = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }

    def is_one(name: str) -> bool:
        known = getattr(builtins, name, None)
        if isinstance(known, type):
            return issubclass(known, Exception)
        return any(map(is_one, bases.get(name, ())))

    return {name for name in bases if is_one(name) and not name.startswith("_")}


def drawn(text: str) -> set[str]:
    """The names in the tree: what is in front of the explanation on each line."""
    tree = text.partition("## The errors")[2].partition("```")[2].partition("```")[0]
    names = (
        line.partition("of these:")[2] or re.split(r" {2,}", line.strip())[0] for line in tree.splitlines()
    )
    return set(re.findall(r"\b[A-Z]\w+", " ".join(names)))


def test_every_exception_stands_in_the_tree() -> None:
    """None is left out, and none is drawn that is not there."""
    sources = [file.read_text() for file in (PROJECT / "service").rglob("*.py")]
    assert drawn(page("architecture.md")) == exceptions(sources)


def test_what_is_an_exception_is_seen() -> None:
    """By its bases, however far up; the names of explanations are not in the tree."""
    source = "class Shoe(ValueError): ...\nclass Boot(Shoe): ...\nclass Hat: ...\nclass _Sock(Shoe): ..."
    assert exceptions([source]) == {"Shoe", "Boot"}
    text = "# A\n\n## The errors\n\n```\nShoe          400 PINCHES, or a Hat\n  Boot        the same\n  of these: Cap\n```\n"
    assert drawn(text) == {"Shoe", "Boot", "Cap"}
