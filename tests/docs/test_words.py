"""What people read is plain modern English: words and turns that they stumble over are not in it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache

import pytest

from tests.docs.markdown import PROJECT, pages

#: What is not written, as a pattern of whole words, and what is written instead.
WORDS: dict[str, str] = {
    "afresh|anew": "again, new",
    "albeit|amidst|amongst|whilst": "although, among, while",
    "alone": "only, in front of what it limits",
    r"another (?!of |one |and |or |in |is |the )\w+ than": "a … other than",
    "as ever|for ever": "as before, permanently",
    "beside": "next to, compared with",
    "besides": "also, in addition to",
    "but for": "except",
    "by what": "how, with which",
    "dearer": "more expensive",
    r"(?:go|goes|went|going) on(?! to\b)": "continues",
    "(?:hand|hands|handed|handing) on": "passes",
    "hence|henceforth|thence|whence|hitherto|herein|thereby|therein|thereof|whereby|wherein": "so, there, with it",
    "he|him|his|himself|she|her|hers|herself": "they, them, their",
    "in the place of": "instead of",
    "is none of (?:its|our|the|their|these)": "is not one of",
    "just so": "the same way",
    "lest|nay|ought|thrice|unto|upon|yonder": "so that … not, should, three times, on",
    "likewise": "also, the same",
    "(?:look|looks|looked|looking) after": "manages",
    "(?:may|can|cannot) be had": "is available",
    "mend|mends|mended|mending": "fix",
    "(?:need|needs) not": "does not have to",
    "nobody's": "no one's; or say whose",
    "of before": "earlier, older",
    "one's own": "your own, their own",
    "one sees": "you see",
    "otherwise than": "differently from",
    r"say(?<=[,(] say|.\(say)(?=[,.)])": "for example",
    "(?:see|sees) to it": "make sure",
    "shall": "must, will, should",
    "(?:stand|stands) (?:above|around|at|before|behind|below|beside|in(?! for)|there|under)": "is",
    "(?:come|comes|came) along": "is sent with",
    "told|tells (?:how|of|what|where|which|why)": "says, shows, explains, reports; gets",
    "whoever|whosoever|whatsoever": "anyone who, the person who, they",
    "worth nothing": "stops working",
}
_PATTERN = re.compile(
    rf"\b(?:{'|'.join(f'(?P<w{number}>{word})' for number, word in enumerate(WORDS))})\b", re.IGNORECASE
)

#: What people read, in addition to the pages: files, and folders with all that is in them.
FOLDERS = (
    *("service", "tests", "bench", "apps", "examples", "deploy", "nginx", "bin", ".ci"),
    *("Makefile", "Procfile", "SECURITY.md", "pyproject.toml"),
)

#: Files of words that are not ours to choose: this list, and what a run of the benchmark printed.
NOT_WORDS = {
    "tests/docs/test_words.py",
    *(str(path.relative_to(PROJECT)) for path in (PROJECT / "bench/results").glob("*")),
}
_NOT_OURS = {"node_modules", "__pycache__", "dist", "build"}

_FENCE = re.compile(r"^[ ]*(```+|~~~+)[^\n]*\n.*?^[ ]*\1[ ]*$", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"^ +\w+:(?= )", re.MULTILINE)
_CODE = re.compile(r"(`+)(.+?)\1|\]\([^)]*\)|<!--.*?-->", re.DOTALL)


def complaints(text: str) -> list[str]:
    """Each word of the list that a text has, with what is written instead."""
    found = []
    for match in _PATTERN.finditer(text):
        instead = list(WORDS.values())[int((match.lastgroup or "w0")[1:])]
        line = text.count("\n", 0, match.start()) + 1
        found.append(f"line {line}: {match[0]!r}: write {instead}")
    return found


def blanked(text: str, pattern: re.Pattern[str]) -> str:
    """The text with nothing where the pattern matches but its lines."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def words_of_page(text: str) -> str:
    """The prose of a page: no code, no targets of links, no comments."""
    return blanked(blanked(text, _FENCE), _CODE)


def words_of_python(source: str) -> str:
    """What people read of a Python file: comments, docstrings and every string with a blank in it, on their lines.

    The names of arguments in a docstring are code.
    """
    lines = [""] * (source.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] += token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for number, line in enumerate(node.value.splitlines()):
                lines[min(node.lineno - 1 + number, len(lines) - 1)] += f" {line}"
    return blanked(blanked("\n".join(lines), _CODE), _ARGUMENT)


def words_of_script(source: str) -> str:
    """The comments of a JavaScript file."""
    return "\n".join(line[line.index("//") :] if "//" in line else "" for line in source.splitlines())


#: How a file is read, by the end of its name. Those that are not here have no words of ours.
READERS = {
    ".py": words_of_python,
    ".md": words_of_page,
    ".mjs": words_of_script,
    ".js": words_of_script,
    **dict.fromkeys(
        ("", ".html", ".toml", ".conf", ".env", ".example", ".service", ".yaml", ".vcl", ".lua"), str
    ),
}


@cache
def read_by_people() -> dict[str, str]:
    """Every file that people read, by its path: pages, what operators edit, and the words of the program and its tests."""
    found = {path: words_of_page(text) for path, text in pages().items()}
    for folder in FOLDERS:
        top = PROJECT / folder
        for path in [top] if top.is_file() else top.rglob("*"):
            name = str(path.relative_to(PROJECT))
            read = READERS.get(path.suffix)
            if read and path.is_file() and not _NOT_OURS & set(path.parts) and name not in NOT_WORDS:
                found[name] = read(path.read_text(encoding="utf-8"))
    return found


def test_what_people_read_has_no_word_of_the_list() -> None:
    """Pages, programs, tests and files of settings use the usual words; the message says which line, and what to write."""
    found = {path: wrong for path, text in read_by_people().items() if (wrong := complaints(text))}
    assert not found, "\n".join(f"{path}, {line}" for path, lines in sorted(found.items()) for line in lines)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Whoever signs in shall be told.", ["Whoever", "shall", "told"]),
        ("It stands\nbeside the app.", ["beside"]),
        ("Only the user may do it; a shell stands in for him.", ["him"]),
        ("A wiki, say, comes here; they say so.", ["say"]),
        ("Sign in again. They continue, and go on to the next page.", []),
        ("The other one stands for itself.", []),
    ],
)
def test_words_of_the_list_are_found(text: str, wrong: list[str]) -> None:
    """Every case and line is found, and what only looks like one is not."""
    assert [re.findall(r"'(.+)':", complaint)[0] for complaint in complaints(text)] == wrong


def test_code_is_not_read_as_words() -> None:
    """What stands in code, in a link's target or in a comment of a page may be a program's own."""
    page = "`shall` [x](whoever.md) <!-- told -->\n\n```\nanew\n```\n\nTheir word.\n"
    assert complaints(words_of_page(page)) == []


def test_words_of_python_are_comments_and_sentences() -> None:
    """Names and short strings are code; docstrings, comments and sentences are words."""
    source = (
        'shall = "anew"  # whoever\n\n\ndef him():\n    """It is told."""\n    return "none shall pass"\n'
    )
    assert complaints(words_of_python(source)) == [
        "line 1: 'whoever': write anyone who, the person who, they",
        "line 5: 'told': write says, shows, explains, reports; gets",
        "line 6: 'shall': write must, will, should",
    ]
