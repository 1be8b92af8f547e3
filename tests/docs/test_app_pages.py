"""docs/apps has a page for each preset, with the very lines that the preset prints."""

from __future__ import annotations

import re

from apps.__main__ import applications
from apps.application import block_of
from service.presets import presets
from tests.docs.markdown import PROJECT
from tests.support.cases import each_of

FOLDER = PROJECT / "docs/apps"
#: Applications that have a test of their own.
ELSEWHERE = {"mod-auth-openidc": "tests/flows/test_provider_apache.py"}
EXAMPLE = {
    "url": "https://app.example.com", "issuer": "https://id.example.com",
    "client_id": "c_jwmngrl6MR1KVNJe9HWEEg", "client_secret": "nwsGTKsG…",
}  # fmt: skip


def test_every_preset_has_a_page_and_every_page_a_preset() -> None:
    """What can be registered by its name can be read about, and the other way round; the list names each."""
    pages = {file.stem for file in FOLDER.glob("*.md")} - {"README"}
    assert pages == set(presets()) and {one.page or name for name, one in applications().items()} <= pages
    index = (FOLDER / "README.md").read_text()
    assert [name for name in sorted(pages) if f"({name}.md)" not in index] == []


@each_of("name", presets())
def test_a_page_shows_what_its_preset_prints(name: str) -> None:
    """The line that registers it, what to write there, and whether that was tried."""
    preset, text = presets()[name], (FOLDER / f"{name}.md").read_text()
    line = f"$ pylon-oidc clients add --preset {name}" + (
        " --url https://app.example.com" if preset.needs_url else ""
    )
    assert text.startswith(f"# {preset.title}\n") and f"\n{line}\n" in text
    assert f"<!-- paste: {name} -->\n```\n{preset.at_other_side(**EXAMPLE)}\n```\n" in text
    if name in applications():
        assert "\nTested by `make apps`" in text
    elif name in ELSEWHERE:
        assert "\nTested by `make test`" in text and (PROJECT / ELSEWHERE[name]).exists()
    else:
        assert "\nNot tested here" in text


def test_the_list_says_which_command_runs_an_application() -> None:
    """`make test` runs the light ones, `make apps` all."""
    rows = re.findall(r"^\| \[.*\]\((.*)\.md\) \| `.*` \| (.*) \|$", (FOLDER / "README.md").read_text(), re.M)
    said = dict(rows)
    for name, one in applications().items():
        wanted = "`make test`, `make apps`" if one.light or name in ELSEWHERE else "`make apps`"
        assert said[one.page or name] == wanted, name
    assert {name for name, tested in rows if tested == "no"}.isdisjoint({*applications(), *ELSEWHERE})


def test_the_page_of_spring_boot_has_the_sign_out_that_is_tested() -> None:
    """Its Java is the file that `make apps` compiles."""
    file = PROJECT / "apps/java/spring-boot/src/main/java/site/SignOut.java"
    assert file.read_text() == "package site;\n\n" + block_of("spring-boot", "java")
