"""`pylon-oidc doctor` as a command: its exit codes, its wrong uses, and its three forms of a report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.cli.doctor import normalised
from service.doctor.catalogue import Finding, kinds
from service.doctor.report import Report
from tests.doctor.asking import ask_doctor
from tests.doctor.deployment import read_deployments
from tests.doctor.running import CLIENT, OTHER_CLIENT, REDIRECT_URI, Apps, Disk, Running, run
from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, PROJECT, Gunicorn, clean_environment, hold_port, rsa_pem

BROKEN = {each.name: each for each in read_deployments("deployments")}
GOOD = {each.name: each for each in read_deployments("good")}


def doctor(*argv: str, width: int = 80) -> Result:
    """Run it in this process."""
    return CliRunner(env={"COLUMNS": str(width)}).invoke(main, ["doctor", *argv])


@pytest.fixture(scope="module")
def well(apps: Apps, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The shipped site."""
    with run(GOOD["shipped"], GOOD["shipped"].files(), apps, disk, _cache(tmp_path_factory)) as running:
        yield running


@pytest.fixture(scope="module")
def ill(apps: Apps, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that passes another Host."""
    broken = BROKEN["host-is-localhost"]
    with run(broken, broken.files(), apps, disk, _cache(tmp_path_factory)) as running:
        yield running


def _cache(factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp("nginx")
    for path in (folder, folder.parent):
        path.chmod(0o755)
    return folder / "cache"


def test_it_runs_as_a_command(well: Running, tmp_path: Path) -> None:
    """From a shell, with a session instead of the admin token: tokens are minted and verify; exit 0."""
    session = tmp_path / "session"
    session.write_text(well.inside.sign_in("doctor-command") + "\n")
    options = [*well.way(), "--session-file", str(session), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "service", "doctor", well.url, *options],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["url"], report["issuer"]) == (well.url, well.url)
    assert {each["severity"] for each in report["findings"]} <= {"note"}


@each_of(("client", "is_told"), [(CLIENT, True), (OTHER_CLIENT, False)])
def test_what_a_client_is_registered_with_is_read_inside(well: Running, client: str, is_told: bool) -> None:
    """With the admin token, a client that may come without PKCE is a note; for one that must send it there is no note."""
    report = ask_doctor(well.url, [*well.doctor_options(), "--client-id", client])
    assert ("client-without-pkce" in {each["id"] for each in report.findings}) is is_told


def test_a_finding_is_an_object_with_all_that_the_page_says(ill: Running) -> None:
    """docs/doctor/README.md: url, issuer, checked, findings; each with what was seen, expected, its fix and its page; exit 1."""
    result = doctor(ill.url, *ill.doctor_options(), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert set(report) == {"url", "issuer", "checked", "findings"}
    first, *others = report["findings"]
    members = {"id", "severity", "title", "seen", "expected", "fix", "docs"}
    assert not any("mend" in each for each in report["findings"])
    assert members <= set(first) <= members | {"alternatives"}
    assert set(first["fix"]) == {"file", "block", "line"}
    assert (PROJECT / first["docs"]).is_file()
    assert "character 9" in first["seen"]  # https://l…, where https://i… was asked for
    assert all(each["severity"] == "note" or each["follows_from"] == first["id"] for each in others)


@each_of("width", [60, 80, 200])
def test_the_table_fits_the_terminal(ill: Running, width: int) -> None:
    """Cause, fix and page are there, in no line that is longer than the terminal is wide."""
    result = doctor(ill.url, *ill.doctor_options(), width=width)
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "proxy_set_header Host $http_host;" in result.output
    assert "pylon-oidc doctor --explain host-not-forwarded" in result.output
    told = [line for line in result.output.splitlines() if not re.search(r"\S{20}", line)]
    assert max(map(len, told)) <= width


@each_of(("height", "shown"), [("200", True), ("24", False), (None, True)])
def test_all_fixes_are_shown_where_they_fit(ill: Running, height: str | None, *, shown: bool) -> None:
    """A tall terminal or a file has the lines for every proxy that may be in front; a low terminal has the first."""
    result = CliRunner(env={"COLUMNS": "100", "LINES": height}).invoke(
        main, ["doctor", ill.url, *ill.doctor_options()]
    )
    assert "proxy_set_header Host $http_host;" in result.output
    assert ("ProxyPreserveHost On" in result.output) == shown


@each_of(
    ("proxy", "line"),
    [
        ("caddy", "header_up Host {host}"),
        ("apache", "ProxyPreserveHost On"),
        ("traefik", "passHostHeader: true"),
        ("varnish", "remove: set req.http.Host"),
    ],
)
def test_the_line_is_that_of_the_proxy_that_was_named(ill: Running, proxy: str, line: str) -> None:
    """With `--proxy` there is that proxy's line, and none of another."""
    result = doctor(ill.url, *ill.doctor_options(), "--proxy", proxy)
    assert line in result.output
    assert "nginx/" not in result.output


def test_a_proxy_without_a_line_is_said_to_have_none(tmp_path: Path) -> None:
    """A finding that only has lines for other proxies says so, as text and as JSON."""
    kind = kinds()["response-header-too-large"]
    report = Report("https://id.example.com", None, "traefik", (), 1, [Finding(kind, "502")], 0)
    assert "doctor has no line for traefik" in "\n".join(report.as_text(80, 24))
    (told,) = report.as_json()["findings"]
    assert (told["fix"], told["no_fix"]) == (None, "doctor has no line for traefik")
    assert {each["proxy"] for each in told["alternatives"]} >= {"nginx", "haproxy"}


@each_of("id_", ["host-not-forwarded", "refused-by-proxy"])
def test_a_finding_is_explained_without_its_page(id_: str) -> None:
    """What `more` shows is text that an installed program has."""
    result = doctor("--explain", id_)
    assert result.exit_code == 0
    assert result.output.startswith("# ")
    assert kinds()[id_].cause in result.output
    assert doctor("--explain", "nothing").exit_code == 2


@each_of(
    "pasted",
    [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/oidc/jwks",
        "/oidc/token",
        "/healthz",
        "/",
    ],
)
def test_a_pasted_address_of_an_endpoint_stands_for_the_service(pasted: str) -> None:
    """RFC 8414 §3.1, Discovery §4: what is pasted is not taken for an issuer, under a path neither."""
    assert normalised(f"https://ID.example.com{pasted}") == "https://id.example.com"
    assert normalised(f"https://id.example.com:8443/auth{pasted}") == "https://id.example.com:8443/auth"
    inserted = "https://id.example.com/.well-known/openid-configuration/auth"
    assert normalised(inserted) == "https://id.example.com/auth"


def test_an_answer_that_came_late_is_no_health(apps: Apps, disk: Disk, tmp_path: Path) -> None:
    """Three seconds an answer, and no cookies: both are found in more than the usual time; in less, the report says that nothing came; exit 1."""
    (slow,) = read_deployments("slow")
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    with run(slow, slow.files(), apps, disk, tmp_path / "cache") as running:
        client = ["--client-id", CLIENT, "--redirect-uri", REDIRECT_URI]
        patient = ask_doctor(slow.url, [*running.way(), *client])
        hasty = ask_doctor(slow.url, [*running.way(), "--timeout", "2"])
    assert patient.exit_code == hasty.exit_code == 1
    told = [each["id"] for each in patient.findings]
    assert told[0] == slow.expect
    # On a slow machine some answers come too late as well.
    assert {*slow.also} <= {*told} or "too-slow" in told
    assert "too-slow" in {each["id"] for each in hasty.findings}


def test_the_inside_may_be_a_unix_socket(tmp_path: Path) -> None:
    """What the shipped unit listens on is an inside address, in each of its spellings."""
    token, path = tmp_path / "token", tmp_path / "s"
    token.write_text(ADMIN)
    settings = {
        "PYLON_OIDC_ISSUER": "http://localhost:{port}",
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_JWT_ALG": "RS256",
        "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
    }
    with Gunicorn(argv=["--bind", f"unix:{path}"], **settings) as server:
        for address in (f"unix:{path}", f"unix://{path}"):
            options = ["--admin-url", address, "--admin-token-file", str(token)]
            report = ask_doctor(f"http://localhost:{server.port}", options)
            assert report.faults == []
            assert "no session" not in str(report.findings)
        report = ask_doctor(f"http://localhost:{server.port}", ["--admin-url", f"unix:{path}x", *options[2:]])
    assert [each["id"] for each in report.findings if each["severity"] != "note"] == ["inside-unreachable"]


def test_the_page_needs_nothing_else(ill: Running, tmp_path: Path) -> None:
    """One file to attach to a ticket: no script, nothing to load, and the line to paste."""
    page = tmp_path / "page.html"
    doctor(ill.url, *ill.doctor_options(), "--html", str(page))
    text = page.read_text("utf-8")
    assert "proxy_set_header Host $http_host;" in text
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|\ssrc=", text)


def test_it_watches_until_it_is_interrupted(well: Running) -> None:
    """`--watch` continues after the first report, and ends by Ctrl-C."""
    watching = subprocess.Popen(
        [sys.executable, "-m", "service", "doctor", well.url, *well.doctor_options(), "--watch"],
        cwd=PROJECT,
        env=clean_environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests behind its prompt lets them ignore Ctrl-C, and what they start too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert watching.stdout is not None
        assert well.url in watching.stdout.readline()
        assert watching.poll() is None
        os.kill(watching.pid, signal.SIGINT)
        _, said = watching.communicate(timeout=90)
        assert "Traceback" not in said
        assert watching.returncode not in {0, None}
    finally:
        watching.kill()
        watching.communicate()


def test_nobody_there_is_told_apart() -> None:
    """Exit 2: it could not be asked, and a finding says why."""
    holder = hold_port()
    result = doctor(f"http://127.0.0.1:{holder.getsockname()[1]}", "--json")
    holder.close()
    assert result.exit_code == 2
    assert [each["id"] for each in json.loads(result.stdout)["findings"]] == ["connection-refused"]


@each_of(
    "argv",
    [
        [],
        ["ftp://id.example.com"],
        ["https://id.example.com/?a=b"],
        ["https://user@id.example.com"],
        ["https://id.example.com:99999"],
        ["https://id.example.com", "--connect-to", "id.example.com:443"],
        ["https://id.example.com", "--connect-to", "id.example.com:443:127.0.0.1:x"],
        ["https://id.example.com", "--source", "eth0"],
        ["https://id.example.com", "--timeout", "0"],
        ["https://id.example.com", "--proxy", "squid"],
        ["https://id.example.com", "--admin-url", "http://127.0.0.1:4321"],
        ["https://id.example.com", "--session-file", "/nowhere"],
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(argv: list[str]) -> None:
    """Exit 2, and what to write instead."""
    result = doctor(*argv)
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert "Traceback" not in result.output


@each_of("text", ["", "a b\n", "first-secret\nsecond-secret\n", "schlüssel\n"])
def test_what_cannot_be_a_secret_is_refused_unseen(text: str, tmp_path: Path) -> None:
    """A file with something else in it is a wrong use; what is in it is not shown."""
    file = tmp_path / "token"
    file.write_text(text)
    result = doctor(
        "https://id.example.com", "--admin-url", "http://127.0.0.1:4321", "--admin-token-file", str(file)
    )
    assert result.exit_code == 2
    assert "has no usable secret" in result.output
    assert not text or text.strip() not in result.output
