"""The README is one screen that sends each reader to one page; that page says whom it is for."""

from __future__ import annotations

from tests.docs.markdown import links, page, rows, section

#: Lines of a terminal of ordinary height, and a little less than an ordinary browser shows.
SCREEN = 45


def test_the_readme_begins_with_one_screen() -> None:
    """What it is, the two commands, one picture and one line of the benchmark come first, then who reads what."""
    first, _, rest = page("README.md").partition("## Who reads what\n")
    assert rest and first.count("\n") < SCREEN
    assert ("make run" in first, "make test" in first, "(docs/bench.md)" in first) == (True, True, True)
    assert first.count("```") == 4  # the commands, and the picture


def test_each_reader_has_one_page_to_start_with() -> None:
    """A row for the app's developer, the verifier's, who connects a program, the operator and the reviewer."""
    table = rows(section(page("README.md"), "Who reads what"))
    starts = [link.removeprefix("docs/") for _, start, _ in table for link in links(start)]
    assert starts == ["quickstart.md", "verify.md", "relying-parties.md", "deploy.md", "security.md"]
    for name in starts:
        opening = page(name).split("\n\n")[1]
        assert opening.startswith("For the "), f"{name} does not begin with whom it is for"


def test_the_glossary_is_in_order() -> None:
    """Each term stands once, by the alphabet, with an explanation."""
    table = rows(page("glossary.md"))
    terms = [term.strip("`").lower() for term, _ in table]
    assert terms == sorted(set(terms))
    assert all(meaning.endswith((".", ")")) for _, meaning in table)
