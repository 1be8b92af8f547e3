"""The files of `nginx/` and their page: complete, and nothing in them that an operator would have to undo."""

from __future__ import annotations

import re

from tests.support.cases import each_of
from tests.support.gunicorn import PROJECT
from tests.support.nginx import SHIPPED

FILES = sorted(
    path.relative_to(SHIPPED).as_posix()
    for path in SHIPPED.rglob("*")
    if path.is_file() and path.name != "local.conf"
)
PAGE = (PROJECT / "docs" / "nginx.md").read_text()


def read(name: str) -> str:
    return (SHIPPED / name).read_text()


def directives(name: str) -> list[str]:
    """The lines of a file without comments and blanks."""
    bare = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in read(name).splitlines())
    return [line for line in bare if line]


@each_of("name", FILES)
def test_every_file_is_explained(name: str) -> None:
    """Each file begins with what it is for, and has its line in the page."""
    assert read(name).startswith("# ")
    assert f"| `{name}` |" in PAGE


def test_the_page_names_no_file_that_is_absent() -> None:
    """The table of the page lists what is there, and nothing else."""
    assert sorted(re.findall(r"^\| `([\w./-]+\.(?:conf|example))` \|", PAGE, re.MULTILINE)) == FILES


@each_of("name", FILES)
def test_every_include_leads_somewhere(name: str) -> None:
    """What is included is shipped, or is the operator's local.conf."""
    for line in directives(name):
        for target in re.findall(r"^include pylon-oidc/(\S+);$", line):
            assert target == "local.conf" or target in FILES


@each_of("name", [name for name in FILES if name != "local.conf.example"])
def test_what_differs_from_site_to_site_is_in_local_conf_alone(name: str) -> None:
    """No other file has an absolute path, an address to listen on, a name or a certificate."""
    ours = re.compile(
        r"\b(listen|server_name|ssl_certificate\w*|access_log|error_log|proxy_cache_path|upstream) "
    )
    for line in directives(name):
        assert not ours.match(line), line
        assert not re.search(r"[ :]/(etc|var|run|usr|tmp)/", line), line


def test_each_server_block_of_the_example_logs_without_query_strings() -> None:
    """Every block has our log format and an error log at crit: below it nginx writes whole request lines."""
    blocks = read("local.conf.example").split("\nserver {")[1:]
    assert len(blocks) == 3
    for block in blocks:
        assert re.search(r"^ +access_log \S+ pylon_oidc ", block, re.MULTILINE)
        assert re.search(r"^ +error_log \S+ crit;", block, re.MULTILINE)


def test_allow_app_conf_is_loopback_as_shipped() -> None:
    """Nobody but this machine, until the operator says so; the refusal of the rest is in the snippet."""
    assert directives("allow-app.conf") == ["allow 127.0.0.1;", "allow ::1;"]
    assert directives("snippets/admin-only.conf")[-1] == "deny all;"


def test_the_page_has_the_limits_of_the_files() -> None:
    """The figures of the page are those of the files."""
    figures = {
        "100 requests a second, bursts of 200": ("rate=100r/s", "zone=pylon_credential burst=200"),
        "1,000 requests a second, bursts of 2,000": ("rate=1000r/s", "zone=pylon_address burst=2000"),
        "20 requests a second, bursts of 200": ("rate=20r/s", "zone=pylon_browser burst=200"),
        "1 request a second, bursts of 20": ("rate=1r/s", "zone=pylon_strangers burst=20"),
        "64 at once": ("pylon_credential_at_once 64;",),
        "512 at once": ("pylon_address_at_once 512;",),
    }
    files = (
        "local.conf.example",
        "snippets/limits.conf",
        "snippets/limits-browser.conf",
        "snippets/limits-strangers.conf",
    )
    text = "".join(map(read, files))
    for said, written in figures.items():
        assert said in PAGE
        assert all(part in text for part in written)


def test_every_status_that_nginx_refuses_with_is_documented() -> None:
    """The statuses that have a message are those that the page lists."""
    with_message = re.findall(r"^ {4}(\d{3}) +\"", read("site.conf"), re.MULTILINE)
    listed = re.search(r"request_id\"\}\}`: ([\d, ]+)\.", PAGE)
    assert listed is not None
    assert listed[1].split(", ") == with_message
