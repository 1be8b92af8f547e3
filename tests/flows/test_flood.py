"""A flood by 64 addresses on everything that asks for no credential, through the shipped site: bounded, and over when it is over.

2,000 requests, in `make test`; `PYLON_TESTS_FLOOD=100000` for the whole of it, some minutes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from service.records.waiting import LOOK_EVERY, MOST_IN_ALL, MOST_OF_ONE_ADDRESS
from service.storage.interface import Kind
from tests.flows.behind_nginx import OUT, Behind, Visitor, authorization, behind_nginx
from tests.flows.polling import wait_until
from tests.storage.stores import rows
from tests.support.app import query_of
from tests.support.faketime import clock_environment
from tests.support.gunicorn import PROJECT, TRUSTED, clean_environment
from tests.support.pace import in_time

REQUESTS = int(os.environ.get("PYLON_TESTS_FLOOD", "2000"))
ADDRESSES = [f"127.0.1.{number}" for number in range(64)]
HONEST = "127.0.2.1"
WORKERS = 2
AT_ONCE = 16
PER_CONNECTION = 40
#: What the pages promise of the table of what waits, and that all else stays as small as it was.
MOST_BYTES = 150_000_000


def requests(site_authority: str) -> Iterator[bytes]:
    """One request after the other, each at another endpoint, as large as it may be, with a credential of its own."""
    long = "x" * 6900
    form = "Content-Type: application/x-www-form-urlencoded"
    sent = urlencode(authorization(state=long), quote_via=quote)
    signed_out = urlencode({"client_id": "wiki", "post_logout_redirect_uri": OUT, "state": long})
    code = urlencode({"grant_type": "authorization_code", "code": "c" * 43, "redirect_uri": OUT})
    kinds: list[tuple[str, str, str, str]] = [
        ("GET", f"/oidc/authorize?{sent}", "", ""),
        ("POST", "/oidc/authorize", form, sent),
        ("POST", "/oidc/logout", form, signed_out),
        ("POST", "/oidc/logout", form, f"state={long}"),
        ("GET", f"/oidc/logout?{signed_out}", "", ""),
        ("GET", f"/oidc/authorize?client_id=nobody&state={long}", "", ""),
        ("GET", "/oidc/interaction/{n}?verifier={n}", "", ""),
        ("POST", "/oidc/interaction/{n}", form, "form_token={n}&decision=allow"),
        ("POST", "/oidc/token", form, f"client_id=wiki&client_secret={'w' * 40}&{code}"),
        ("POST", "/oidc/token", form, "client_id=nobody-{n}&grant_type=refresh_token&refresh_token={n}"),
        ("GET", "/oidc/userinfo", "", ""),
        ("POST", "/oidc/userinfo", form, "access_token={n}"),
        ("POST", "/oidc/introspect", form, "token={n}&client_id=wiki"),
        ("POST", "/oidc/revoke", form, "token={n}&client_id=nobody"),
        ("POST", "/api/auth/jwt", "", ""),
        ("POST", "/api/auth/refresh", "", ""),
        ("GET", "/api/auth/me", "", ""),
        ("DELETE", "/api/auth/session", "", ""),
        ("POST", "/api/auth/session", "Content-Type: application/json", '{{"user_id": "{n}"}}'),
        (
            "POST",
            "/api/auth/sessions/trusted-mint",
            f"Content-Type: application/json\r\nX-Pylon-Trusted-Timestamp: {int(time.time())}\r\n"
            f"X-Pylon-Trusted-Signature: {'a' * 64}",
            '{{"user_id": "{n}"}}',
        ),
        ("GET", "/dev/sign-in", "", ""),
        ("GET", "/oidc/jwks?{n}", "", ""),
        ("GET", "/nothing/{n}", "", ""),
    ]
    for number in itertools.count():
        # What may leave something behind comes more often than what cannot.
        kind = kinds[number % 5 if number % 2 else (number // 2) % len(kinds)]
        method, target, more, body = (part.replace("{n}", str(number)) for part in kind)
        body = body.replace("{{", "{").replace("}}", "}")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {site_authority}", f"X-Request-Id: flood-{number:08}"]
        lines += [f"Authorization: {'Bearer' if number % 3 else 'Basic'} {secrets.token_hex(16)}"]
        lines += [f"Cookie: pylon_session=pylon_{secrets.token_hex(32)}", *([more] if more else [])]
        lines += [f"Content-Length: {len(body)}"] if body or method == "POST" else []
        yield "\r\n".join([*lines, "", ""]).encode() + body.encode()


def flood(behind: Behind, count: int) -> Counter[int]:
    """Send so many requests from all addresses; how often each status came."""
    made, lock, statuses = requests(behind.site.authority), threading.Lock(), Counter[int]()

    def send(number: int) -> None:
        with lock:
            batch = list(itertools.islice(made, PER_CONNECTION))
        # The last one closes.
        batch[-1] = batch[-1].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        answers = behind.site.exchange(b"".join(batch), source=ADDRESSES[number % len(ADDRESSES)], timeout=60)
        with lock:
            statuses.update(answer.status for answer in answers)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(send, range(count // PER_CONNECTION)))
    return statuses


def register(behind: Behind, address: str, count: int) -> Counter[int]:
    """Register so many clients from one address, over one connection; how often each status came."""
    body = json.dumps({"redirect_uris": ["https://a.example/"], "client_name": "x" * 255})
    head = (
        f"POST /oidc/register HTTP/1.1\r\nHost: {behind.site.authority}\r\nContent-Type: application/json\r\n"
    )
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
    last = request.replace("\r\n", "\r\nConnection: close\r\n", 1)
    answers = behind.site.exchange((request * (count - 1) + last).encode(), source=address, timeout=60)
    return Counter(answer.status for answer in answers)


@contextmanager
def honest_sign_ins(behind: Behind) -> Iterator[list[float]]:
    """Somebody signs in every so often; how long each took, in s. A failure fails the test."""
    took: list[float] = []
    failed: list[object] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.1):
            began = time.monotonic()
            try:
                visitor = Visitor(behind, source=HONEST)
                answer = visitor.sign_in(state="honest")
                code = query_of(answer.headers["location"])["code"]
                assert visitor.redeem(code).status == 200
            except Exception as error:
                failed.append(repr(error))
            took.append(time.monotonic() - began)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()
    assert not failed, failed[:3]


@contextmanager
def measured(path: Path) -> Iterator[list[int]]:
    """How large the database is, its log included, in bytes, every so often."""
    sizes: list[int] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.1):
            sizes.append(size_of(path))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()


def size_of(path: Path) -> int:
    """Bytes of the database and its log."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def sweep_later(url: str, *, in_s: int = 7200) -> None:
    """`pylon-oidc sweep`, so many s from now."""
    environment = clean_environment(DATABASE_URL=url, **clock_environment(in_s))
    subprocess.run([sys.executable, "-m", "service", "sweep"], cwd=PROJECT, env=environment, check=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pylon.db"


def test_a_flood_is_bounded_and_honest_people_sign_in(path: Path) -> None:
    """docs/security.md: while it lasts the database stays below what the pages name; after the sweep it is as small as before."""
    url = f"sqlite:///{path}"
    settings = {"PYLON_TRUSTED_SECRET": TRUSTED, "PYLON_OIDC_REGISTRATION": "open"}
    with behind_nginx(url, WEB_CONCURRENCY=str(WORKERS), **settings) as behind:
        assert Visitor(behind, source=HONEST).sign_in().status == 303
        before = path.stat().st_size
        with measured(path) as sizes, honest_sign_ins(behind) as took:
            statuses = flood(behind, REQUESTS)
        assert sum(statuses.values()) >= REQUESTS - PER_CONNECTION
        assert set(statuses) <= {200, 303, 400, 401, 403, 404, 405, 413, 415, 429}, statuses
        waiting = rows(url, Kind.INTERACTION)
        # What is over the bound goes a slice at a time, so a full table may be a little below it.
        assert min(MOST_IN_ALL * 9 // 10, REQUESTS // 8) < waiting <= MOST_IN_ALL + LOOK_EVERY * WORKERS, (
            statuses
        )
        assert waiting <= len(ADDRESSES) * (MOST_OF_ONE_ADDRESS + LOOK_EVERY * WORKERS)
        assert max(sizes) < MOST_BYTES
        assert len(took) > 2
        assert in_time(sorted(took)[len(took) * 95 // 100], 5), sorted(took)[-5:]
        for kind in set(Kind) - {Kind.INTERACTION}:
            # Whatever else is there came of the honest one.
            assert rows(url, kind) <= 3 * len(took) + 3, kind
        sweep_later(url)
        assert rows(url, Kind.INTERACTION) == 0
        wait_until(lambda: path.stat().st_size <= before + (2 << 20), timeout_s=60)
        assert size_of(path) <= before + (7 << 20)
        assert Visitor(behind, source=HONEST).sign_in().status == 303
        with honest_sign_ins(behind), ThreadPoolExecutor(AT_ONCE) as pool:
            began = time.monotonic()
            registered = sum(
                pool.map(lambda each: register(behind, each, 40), ADDRESSES[:16]), Counter[int]()
            )
            most = 16 * (21 + math.ceil(time.monotonic() - began))
        assert set(registered) == {201, 429} and 16 * 21 <= registered[201] <= most
        assert rows(url, Kind.CLIENT) == registered[201]
        sweep_later(url, in_s=31 * 86_400)
        assert rows(url, Kind.CLIENT) == 0
