"""The service on a disk of 10 MB that somebody fills: who was signed out is signed out, and nothing is given out for good.

Run by `test_full_disk.py`, where it may mount.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.storage.reserve import PORTION, PORTIONS
from tests.flows.behind_nginx import CLIENT, CLIENT_SECRET, OUT, Behind, Visitor, behind_nginx
from tests.flows.polling import wait_until
from tests.support.app import query_of
from tests.support.gunicorn import PROJECT, Answer
from tests.support.small_disk import SmallDisk

#: More than find room in what the log of SQLite may have taken of the disk before it was full.
USERS = [f"user-{number}" for number in range(160)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def behind(disk: SmallDisk) -> Iterator[Behind]:
    """A provider whose database, keys included, is on the disk."""
    keys: dict[str, Any] = {
        "PYLON_OIDC_PRIVATE_KEY": None,
        "PYLON_OIDC_KEYS": "managed",
        "PYLON_KEY_ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
    }
    with behind_nginx(f"sqlite:///{disk.folder / 'pylon.db'}", **keys) as running:
        yield running


def reserve(disk: SmallDisk) -> int:
    return (disk.folder / "pylon.db.reserve").stat().st_size


def sign_in(behind: Behind, user_id: str, name: str = "") -> Answer:
    return behind.admin("POST", "/api/auth/session", {"user_id": user_id, "claims": {"name": name}})


def flood(behind: Behind, disk: SmallDisk) -> None:
    """Sign users in until it is refused, and let another program have what is left."""
    for number in range(1000):
        answer = sign_in(behind, f"flood-{number}", "x" * 30_000)
        if answer.status != 201:
            break
    assert answer.status == 503, answer
    assert answer.json()["error"]["code"] == "STORE_UNAVAILABLE"
    disk.fill()


def is_active(behind: Behind, token: str) -> bool:
    """What introspection tells the client."""
    form = {"token": token, "client_id": CLIENT, "client_secret": CLIENT_SECRET}
    answer = Visitor(behind).ask("POST", "/oidc/introspect", form)
    assert answer.status == 200, answer
    return bool(answer.json()["active"])


def pylon_oidc(behind: Behind, *arguments: str) -> str:
    """Run a command on the same database; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=PROJECT,
        env=behind.server.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_who_was_signed_out_is_signed_out(behind: Behind, disk: SmallDisk) -> None:
    """docs/security.md: on a full disk everything that takes away works at the first call, and nothing else is lost."""
    server = behind.server
    made = {name: sign_in(behind, name).json() for name in ("bob", "carol", "dora", "emil")}
    tokens = {name: str(each["token"]) for name, each in made.items()}
    added = behind.admin("POST", "/api/oidc/clients", {"redirect_uris": ["https://a.example/"]}).json()
    ada, second = Visitor(behind), Visitor(behind)
    wanted = "openid profile offline_access"
    first, other = (
        who.redeem(query_of(who.sign_in(scope=wanted).headers["location"])["code"]).json()
        for who in (ada, second)
    )
    kids = [key["kid"] for key in json.loads(pylon_oidc(behind, "keys", "list", "--json"))["keys"]]
    flood(behind, disk)

    # What is there keeps working, and nothing is added.
    assert server.mint(tokens["bob"]).status == 200
    assert is_active(behind, first["access_token"])
    assert sign_in(behind, "new").status == 503
    assert Visitor(behind).ask("GET", "/oidc/authorize?" + "response_type=code").status == 400
    assert Visitor(behind).sign_in().status == 503
    refreshed = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    as_client = {"client_id": CLIENT, "client_secret": CLIENT_SECRET}
    assert ada.ask("POST", "/oidc/token", refreshed | as_client).status == 503

    # Lock-out, sign-out, the deletion of a session, of a grant, of a token, of a client, of a key.
    assert behind.admin("DELETE", "/api/auth/users/bob/sessions").status == 200
    shown = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
    assert server.call("DELETE", "/api/auth/session", headers=shown["carol"]).json() == {"revoked": True}
    sid = made["dora"]["sid"]
    assert server.call("DELETE", f"/api/auth/sessions/{sid}", headers=shown["dora"]).status in {200, 204}
    pylon_oidc(behind, "sessions", "revoke", "--user", "emil")
    for token in tokens.values():
        assert server.mint(token).status == 401
    grants = behind.admin("GET", "/api/oidc/grants?user_id=ada").json()["grants"]
    assert len(grants) == 2
    assert behind.admin("DELETE", f"/api/oidc/grants/{grants[0]['id']}").status == 204
    assert [is_active(behind, each["access_token"]) for each in (first, other)].count(True) == 1
    for each in (first, other):
        assert ada.ask("POST", "/oidc/revoke", {"token": each["refresh_token"]} | as_client).status == 200
        assert not is_active(behind, each["access_token"])
    assert behind.admin("DELETE", f"/api/oidc/clients/{added['client_id']}").status == 204
    pylon_oidc(behind, "keys", "revoke", kids[-1])
    roles = {
        key["kid"]: key["role"] for key in json.loads(pylon_oidc(behind, "keys", "list", "--json"))["keys"]
    }
    assert roles.get(kids[-1], "gone") == "gone"

    # A sign-out by a relying party: at once by its hint; by a form that is kept; by a page that asks.
    answer = second.ask(
        "POST", "/oidc/logout", {"id_token_hint": other["id_token"], "post_logout_redirect_uri": OUT}
    )
    answer = second.ask("GET", answer.headers["location"])
    assert (answer.status, answer.headers["location"]) == (303, OUT)
    page = ada.ask("GET", "/oidc/logout")
    token = page.body.decode().partition('name="form_token" value="')[2].partition('"')[0]
    assert token, page
    assert ada.ask("POST", "/oidc/logout", {"form_token": token, "decision": "allow"}).status == 200
    assert behind.admin("GET", "/api/auth/users/ada/sessions").json()["sessions"] == []

    # With room again all is as before.
    disk.empty()
    wait_until(lambda: sign_in(behind, "new").status == 201, timeout_s=60)
    assert reserve(disk) == PORTION * PORTIONS


def test_minting_does_not_outlive_revocation(behind: Behind, disk: SmallDisk) -> None:
    """When the reserve is used up nothing is given out, in any worker, until there is room again."""
    server = behind.server
    tokens = {name: str(sign_in(behind, name).json()["token"]) for name in USERS}
    flood(behind, disk)
    with closing(sqlite3.connect(disk.folder / "pylon.db", isolation_level=None)) as reader:
        # Somebody reads all the while, as a backup does: what is written makes SQLite's log longer, each time.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM session").fetchall()
        locked_out = []
        for name in USERS[1:]:
            assert server.mint(tokens[USERS[0]]).status == 200
            if behind.admin("DELETE", f"/api/auth/users/{name}/sessions").status != 200:
                break
            locked_out.append(name)
            disk.fill()
            if reserve(disk) < PORTION:
                break
        assert len(locked_out) >= PORTIONS - 1
        for name in locked_out:
            assert server.mint(tokens[name]).status == 401
        wait_until(lambda: {server.mint(tokens[USERS[0]]).status for _ in range(20)} == {503})
    assert server.call("GET", "/healthz").status == 200
    disk.empty()
    wait_until(lambda: server.mint(tokens[USERS[0]]).status == 200, timeout_s=60)
    wait_until(lambda: sign_in(behind, "new").status == 201, timeout_s=60)
    assert reserve(disk) == PORTION * PORTIONS
