"""The example relying party, as its README has it: dev mode, its own client, a browser."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flows.polling import wait_until
from tests.support.app import direct
from tests.support.browser import Browser
from tests.support.gunicorn import PROJECT, clean_environment, hold_port

EXAMPLE = PROJECT / "examples" / "relying_party"
README = (EXAMPLE / "README.md").read_text()


@dataclass
class Machine:
    """A developer's machine with both running.

    Attributes:
        issuer: Of the provider.
        example: The origin of the example.
        browser: Chromium.
    """

    issuer: str
    example: str
    browser: Browser


def clients_of_the_readme(origin: str) -> str:
    """The value of `PYLON_OIDC_CLIENTS` as it is written there, at another origin."""
    found = re.search(r"export PYLON_OIDC_CLIENTS='([^']*)'", README)
    assert found is not None
    return found[1].replace("http://localhost:9000", origin)


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A program, from its start to its end."""
    environment |= {"NO_PROXY": "localhost", "no_proxy": "localhost"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(35)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_page(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers."""

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with direct() as session:
            return session.get(url, timeout=10).status_code == 200

    wait_until(answers, 30)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Both, started as the README says."""
    folder = tmp_path_factory.mktemp("example")
    with hold_port() as one, hold_port() as other:
        yield from _started(folder, one.getsockname()[1], other.getsockname()[1])


def _started(folder: Path, port: int, example_port: int) -> Iterator[Machine]:
    issuer, example = f"http://localhost:{port}", f"http://localhost:{example_port}"
    settings = {
        "PORT": str(port),
        "PYLON_DATA_DIR": str(folder / "data"),
        "PYLON_OIDC_CLIENTS": clients_of_the_readme(example),
    }
    logs = folder / "provider.txt", folder / "example.txt"
    with running([str(PROJECT / "deploy" / "dev-run")], PROJECT, logs[0], **settings) as provider:
        wait_for_page(f"{issuer}/readyz", provider, logs[0])
        own = {"ISSUER": issuer, "PORT": str(example_port)}
        with running([sys.executable, "app.py"], EXAMPLE, logs[1], **own) as process, Browser() as browser:
            wait_for_page(f"{example}/", process, logs[1])
            yield Machine(issuer, example, browser)


def test_the_example_signs_a_user_in_and_out(machine: Machine) -> None:
    """Open the page, sign in on the development page, allow, see the claims, sign out, be a stranger again."""
    browser = machine.browser
    browser.open(machine.example)
    browser.click("a[href='/sign-in']")
    browser.wait_for(f"{machine.issuer}/dev/sign-in")
    browser.write("[name=user_id]", "alice")
    browser.write("[name=name]", "Alice Example")
    browser.write("[name=email]", "alice@example.com")
    browser.click("main form button")
    browser.wait_for(f"{machine.issuer}/oidc/interaction/")
    browser.wait_for_text("The example")
    browser.click("button[value=allow]")
    browser.wait_for(f"{machine.example}/")
    for shown in ("sub\nalice", "email\nalice@example.com", machine.issuer):
        assert shown in browser.text
    browser.click("form button")
    browser.wait_for_text("Sign in")
    assert browser.url == f"{machine.example}/"
    browser.open(f"{machine.example}/sign-in")
    assert browser.url.startswith(f"{machine.issuer}/dev/sign-in")
    assert browser.console() == []


def test_the_example_refuses_an_answer_that_it_did_not_ask_for(machine: Machine) -> None:
    """A callback without a question before it signs nobody in."""
    with direct() as session:
        answer = session.get(f"{machine.example}/callback?code=x&state=y", timeout=10)
    assert answer.status_code == 400


def test_the_readme_names_what_the_example_is() -> None:
    """Client, secret and port of the README are those of the program."""
    source = (EXAMPLE / "app.py").read_text()
    for text in ('"client_id": "example"', '"client_secret": "example-secret-for-this-machine-only"'):
        assert text in source
        assert text in README
    assert '"PORT", "9000"' in source
