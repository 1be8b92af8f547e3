"""What the tests' docstrings cite is here, so that a reader finds why a check is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.docs.markdown import PROJECT

TESTS = PROJECT / "tests"
DOCSTRING = re.compile(r'"""(.*?)"""', re.S)
PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")
#: A section whose specification or page stands nowhere before it in the docstring.
BARE = re.compile(r"§\d")
#: Numbers of lists that the repository does not have.
ELSEWHERE = re.compile(r"\bcontract\b|\bS\d{1,2}\b|\bissue \d|^issue", re.I)


def docstrings() -> Iterator[tuple[str, str]]:
    """Each docstring of the tests, with its file."""
    for path in sorted(TESTS.rglob("*.py")):
        for text in DOCSTRING.findall(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(TESTS)), text


def test_a_page_that_a_test_cites_is_there() -> None:
    """Who renames a page finds the tests that hold it."""
    cited = {(file, page) for file, text in docstrings() for page in PAGE.findall(text)}
    assert len(cited) > 50
    assert sorted(each for each in cited if not (PROJECT / each[1]).is_file()) == []


def test_a_section_says_whose_it_is_and_no_list_of_elsewhere_is_cited() -> None:
    """A docstring never begins with a section, and names no list but those of specifications and docs/."""
    assert [(file, text) for file, text in docstrings() if BARE.match(text) or ELSEWHERE.search(text)] == []
