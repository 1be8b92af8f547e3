"""The pages of doctor's findings are made from its own data, and are not stale."""

from __future__ import annotations

import re

import pytest

from service.doctor.catalogue import DOCS, PROXIES, Finding, Kind, kinds
from service.doctor.pages import page_of
from service.doctor.report import Report
from tests.docs.doctor_pages import pages, write
from tests.docs.markdown import PROJECT
from tests.support.cases import each_of

HOW = "write them again: .venv/bin/python -m tests.docs.doctor_pages docs"


def test_every_page_is_the_one_that_the_data_makes() -> None:
    """docs/doctor/README.md: a page a finding, generated from the same data as the findings."""
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


@each_of("kind", kinds().values(), ids=lambda kind: kind.id)
def test_a_finding_tells_cause_and_remedy(kind: Kind) -> None:
    """docs/doctor/README.md: symptom, cause, fix and how to verify; what is an error of a pylon-oidc can be fixed."""
    assert re.fullmatch(r"[a-z0-9-]+", kind.id)
    assert kind.severity in {"error", "warning", "note"}
    assert kind.title and kind.cause.endswith(".")
    assert kind.severity == "note" or (kind.expected and kind.verify)
    for fix in kind.fixes:
        assert fix.line and fix.line == fix.line.strip()
        assert fix.file or fix.proxy == "system"  # a command for the machine
        if fix.proxy == "nginx":
            shipped = PROJECT / fix.file
            assert shipped.is_file() or shipped.with_name(f"{shipped.name}.example").is_file()
        if fix.proxy == "setting":
            assert f"EnvironmentFile=-{fix.file}\n" in (PROJECT / "deploy/pylon-oidc.service").read_text()


#: Texts of this service that findings quote: people search for them as they read them.
OWN_TEXTS = (
    "This sign-in is over, or was begun in another browser",
    "This did not work",
    "for a client that supports neither, register require_pkce false",
    "client_without_pkce_and_nonce",
    "client_keys_unusable",
)


@each_of("text", OWN_TEXTS)
def test_a_quoted_text_is_the_one_that_the_service_shows(text: str) -> None:
    """docs/troubleshooting.md: a text of the service is found under the words that the service uses today."""
    assert text in {symptom for kind in kinds().values() for symptom in kind.symptoms}
    assert any(text in path.read_text("utf-8") for path in (PROJECT / "service").rglob("*.py"))


def test_no_page_has_a_placeholder() -> None:
    """What doctor fills in with what it saw is an example on a page; these are Caddy's and curl's own."""
    of_others = {"host", "hostport", "time_total", "http_code"}
    left = {name: set(re.findall(r"\{([a-z_]+)\}", text)) - of_others for name, text in pages().items()}
    assert {name: names for name, names in left.items() if names} == {}


def test_whatever_stands_in_front_a_finding_has_a_line_or_says_that_it_has_none(
    subtests: pytest.Subtests,
) -> None:
    """Each case of each finding, for each proxy; the page that it names is there, and is what `--explain` prints."""
    for kind in kinds().values():
        with subtests.test(kind.id):
            assert (PROJECT / DOCS.format(id=kind.id)).read_text() == f"{page_of(kind.id)}\n"
            for proxy in PROXIES:
                for case in {"", *kind.cases, *(fix.variant for fix in kind.fixes)}:
                    finding = Finding(kind, "seen", {}, case)
                    report = Report("https://id.example.com", None, proxy, (), 1, [finding], 0)
                    fixes = report.fixes(finding)
                    assert all(fix.proxy not in PROXIES or fix.proxy == proxy for fix in fixes)
                    lines = list(report.as_text(80, 10**6))
                    said = [line for line in lines if line.strip().startswith("fix ")]
                    assert len(said) == len(fixes) or (finding.severity != "note" and len(said) == 1)
                    assert fixes or finding.severity == "note" or report.no_fix(finding) in said[0]
                    assert any(line.endswith(f"pylon-oidc doctor --explain {kind.id}") for line in lines)
