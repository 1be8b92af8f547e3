"""The pages of doctor's findings are made from its own data, and are not stale."""

from __future__ import annotations

import re

import pytest

from service.doctor.catalogue import Kind, kinds
from service.doctor.pages import pages, write
from tests.docs.markdown import PROJECT

HOW = "write them again: .venv/bin/python -m service.doctor.pages docs"


def test_every_page_is_the_one_that_the_data_makes() -> None:
    """Issue "doctor": a page a finding, generated from the same data as the findings."""
    there = {f"doctor/{path.name}" for path in (PROJECT / "docs/doctor").glob("*.md")} | {
        "troubleshooting.md"
    }
    made = pages()
    assert there == set(made), HOW
    assert [name for name, text in made.items() if (PROJECT / "docs" / name).read_text() != text] == [], HOW


def test_a_page_of_a_finding_that_is_no_more_is_removed(tmp_path) -> None:
    """Writing them again leaves nothing behind."""
    write(tmp_path)
    (tmp_path / "doctor/shoe.md").write_text("old")
    write(tmp_path)
    assert {f"doctor/{path.name}" for path in (tmp_path / "doctor").iterdir()} == set(pages()) - {
        "troubleshooting.md"
    }


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.id)
def test_a_finding_tells_cause_and_remedy(kind: Kind) -> None:
    """Issue "doctor": symptom, cause, fix and how to verify; what is an error of a pylon-oidc can be fixed."""
    assert re.fullmatch(r"[a-z0-9-]+", kind.id)
    assert kind.severity in {"error", "warning", "note"}
    assert kind.title and kind.cause.endswith(".")
    assert kind.severity == "note" or (kind.expected and kind.verify)
    for fix in kind.fixes:
        assert fix.line and fix.line == fix.line.strip()
        assert fix.file or fix.proxy == "system"  # a command for the machine
