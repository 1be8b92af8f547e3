"""The systemd unit and the containers: how little is left to it, and that the service lives on that."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest

from tests.flows.polling import wait_until
from tests.support.gunicorn import ADMIN, PROJECT, SECRET, Gunicorn

UNIT = PROJECT / "deploy" / "pylon-oidc.service"
EXPOSURE = 1.3


def _analyze(*arguments: str) -> str:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_unit_is_exposed_as_little_as_it_can_be() -> None:
    """`systemd-analyze security` of the unit, 0 to 10: at most 1.3."""
    report = _analyze("security", "--offline=true", str(UNIT))
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert overall
    print(overall[0])
    assert float(overall[1]) <= EXPOSURE, report


def _allowed_calls() -> list[str]:
    """What `SystemCallFilter` of the unit lets through: its lines, one after the other."""
    allowed: set[str] = set(_expanded("@default"))
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        calls = {call for name in line.removeprefix("~").split() for call in _expanded(name)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return sorted(allowed)


def _expanded(name: str) -> list[str]:
    if not name.startswith("@"):
        return [name]
    listed = [line.strip() for line in _analyze("syscall-filter", name).splitlines()]
    return [
        call
        for line in listed
        if line and line != name and not line.startswith("#")
        for call in _expanded(line)
    ]


@pytest.mark.usefixtures("each_server")
def test_the_service_needs_no_call_that_the_unit_denies() -> None:
    """On its Unix socket it starts, keeps a session, answers, reloads and stops while every other system call fails."""
    allowed = [f"?{call}" for call in [*_allowed_calls(), "execve"]]
    under = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=!{','.join(allowed)}:error=EPERM"]
    refused = subprocess.run([*under, "chown", "0", "."], capture_output=True, timeout=60, check=False)
    assert refused.returncode != 0  # it is in force
    with Gunicorn(
        unix=True, under=under, WEB_CONCURRENCY="1", PYLON_JWT_SECRET=SECRET, PYLON_ADMIN_TOKEN=ADMIN
    ) as server:
        token = server.sign_in()
        assert server.mint(token).status == 200
        old = server.worker_pids()
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: server.worker_pids() and not set(old) & set(server.worker_pids()))
        assert server.mint(token).status == 200
        assert server.stop() == 0


# Containers

_CONFINED = ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]')


def _block(text: str, name: str, indent: int = 0) -> str:
    """A member of a YAML mapping, with what it merges."""
    spaces = " " * indent
    found = re.search(rf"^{spaces}{re.escape(name)}:(?: &\w+)?\n((?:{spaces} +.*\n|\n)+)", text, re.MULTILINE)
    assert found, name
    merged = re.findall(r"<<: \*(\w+)", found[1])
    return found[1] + "".join(_block(text, f"x-{anchor}") for anchor in merged)


def test_no_container_has_a_capability_or_a_root_that_it_can_write() -> None:
    """compose.yaml: each service drops all capabilities, gains none, and is read-only; none is privileged or root."""
    text = (PROJECT / "deploy" / "compose.yaml").read_text()
    own = text[text.index("\nservices:") : text.index("\nnetworks:")]
    services = re.findall(r"^  (\w+):$", own, re.MULTILINE)
    assert services == ["migrate", "app", "database", "nginx"]
    for name in services:
        block = _block(text, name, 2)
        assert all(line in block for line in _CONFINED), name
        assert "user: " in block or "image: pylon-oidc" in block, name
    assert not re.search(r"cap_add|privileged: true|user: (root|\"?0)", text)
    assert "\nUSER 10001\n" in (PROJECT / "deploy" / "Dockerfile").read_text()


def test_an_image_can_be_pinned_and_none_is_pinned_to_what_nobody_tried() -> None:
    """Each base image is a variable; the default is a tag."""
    files = {name: (PROJECT / "deploy" / name).read_text() for name in ("compose.yaml", "Dockerfile")}
    images = re.findall(r"^ *(?:image: |FROM |PYTHON_IMAGE: )(\S+)", "\n".join(files.values()), re.MULTILINE)
    assert len(images) == 6
    assert all(image.startswith("${") for image in images if image != "pylon-oidc")


def test_the_build_sees_what_the_image_is_made_of_and_nothing_else() -> None:
    """.dockerignore: all is left out but what the Dockerfile copies; also byte code and caches."""
    lines = [
        line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (PROJECT / "deploy" / "Dockerfile").read_text(), re.MULTILINE
    )
    assert {source for line in copied for source in line.split()} == let_in
    assert not any(re.search(r"\.env|data|certificates|\.git", path) for path in let_in)
