"""docs/cli.md: `pylon-oidc deliveries list|retry|drop`, and what `sessions revoke` leaves to send."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from service.deliveries import Deliveries
from service.records.deliveries import queued
from service.records.sessions import SignIn
from service.records.visits import visit
from service.sessions import LocalSessions
from service.storage.interface import Kind, Record
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.settings.conftest import Run
from tests.support.cases import each_of

ISSUER: Final = "https://id.example.com"
CLIENTS: Final = json.dumps(
    [
        {
            "client_id": "wiki",
            "client_secret": "b7Rk2mQx9Lw4Tz8Vn1Ys6Hd3Jf5Gc0Pa",
            "redirect_uris": ["https://wiki.example.com/cb"],
            "backchannel_logout_uri": "https://wiki.example.com/told",
        }
    ]
)


@pytest.fixture
def store(tmp_path: Path, run: Run) -> Iterator[SqlStore]:
    """The store that the commands will find."""
    run.have_database()
    with closing(SqlStore(SqliteDatabase(tmp_path / "data" / "pylon.db"))) as opened:
        yield opened


def _queue(store: SqlStore, *client_ids: str) -> list[str]:
    """One waits for each of these clients; their ids."""
    now, ids = int(time.time()), []
    for number, client_id in enumerate(client_ids):
        visit = Record(Kind.VISIT, "x", now + 60, f"user-{number}", session_id="sid", client_id=client_id)
        delivery = queued(visit, ISSUER, now=now, due_at=now + 600)
        store.put(delivery.to_record(), now=now)
        ids.append(delivery.id)
    return ids


def _listed(run: Run) -> list[dict[str, Any]]:
    result = run("deliveries", "list", "--json")
    assert result.exit_code == 0
    listed: list[dict[str, Any]] = json.loads(result.stdout)["deliveries"]
    return listed


def test_they_are_listed(run: Run, store: SqlStore) -> None:
    """As the admin API does, and as a table of 80 columns."""
    (id_,) = _queue(store, "wiki")
    (only,) = _listed(run)
    assert only.keys() == {
        "id", "client_id", "user_id", "sid", "issuer", "state", "tries", "failure", "queued_at", "next_try_at",
    }  # fmt: skip
    assert (only["id"], only["client_id"], only["state"], only["tries"]) == (id_, "wiki", "waiting", 0)
    table = run("deliveries", "list").stdout
    assert "wiki" in table and all(len(line) <= 80 for line in table.splitlines())
    assert ISSUER in run("deliveries", "list", "--wide").stdout


def test_they_are_tried_again_now(run: Run, store: SqlStore) -> None:
    """By id, of a client, or all; one that is not there is a failure."""
    first, second, third = _queue(store, "wiki", "wiki", "other")
    now = int(time.time())
    assert run("deliveries", "retry", first).stdout == "1 logout token is tried again now.\n"
    due = {each["id"]: each["next_try_at"] - now for each in _listed(run)}
    assert due[first] <= 5 and due[second] > 500
    assert run("deliveries", "retry", "--client", "wiki").stdout == "2 logout tokens are tried again now.\n"
    due = {each["id"]: each["next_try_at"] - now for each in _listed(run)}
    assert due[second] <= 5 and due[third] > 500
    result = run("deliveries", "retry", "nowhere")
    assert (result.exit_code, result.stderr) == (1, "There is no logout token nowhere.\n")


def test_they_are_dropped(run: Run, store: SqlStore) -> None:
    """By id, of a client, or all."""
    first, *_ = _queue(store, "wiki", "wiki", "other", "third")
    assert run("deliveries", "drop", first).stdout == "Dropped 1 logout token.\n"
    assert run("deliveries", "drop", "--client", "wiki").stdout == "Dropped 1 logout token.\n"
    assert {each["client_id"] for each in _listed(run)} == {"other", "third"}
    assert run("deliveries", "drop", "--all").stdout == "Dropped 2 logout tokens.\n"
    assert _listed(run) == []


@each_of("command", ["retry", "drop"])
@each_of("arguments", [[], ["x", "--all"], ["--client", "wiki", "--all"]])
def test_which_ones_must_be_said(run: Run, store: SqlStore, command: str, arguments: list[str]) -> None:
    """Exit 2, and nothing is done."""
    _queue(store, "wiki")
    before = _listed(run)
    result = run("deliveries", command, *arguments)
    assert result.exit_code == 2
    assert "No logout token is named" in result.stderr
    assert _listed(run) == before


def _signed_in(store: SqlStore) -> str:
    now = int(time.time())
    session = LocalSessions(store, lifetime_s=600).create(SignIn("ada"), now=now).session
    store.put(visit("ada", session.sid, "wiki", ISSUER, at=now), now=now)
    return session.sid


@each_of("clients", [CLIENTS, "[oops"])
def test_a_lock_out_by_command_is_queued_too(run: Run, store: SqlStore, clients: str) -> None:
    """Due at once; where the clients of the environment cannot be read, nobody is left out for that."""
    sid = _signed_in(store)
    assert run("sessions", "revoke", "--user", "ada", PYLON_OIDC_CLIENTS=clients).exit_code == 0
    (only,) = [each for each in Deliveries(store).shown(now=int(time.time())) if each.sid == sid]
    assert (only.client_id, only.issuer) == ("wiki", ISSUER)
    assert only.due_at <= time.time()


def test_a_client_without_an_address_is_left_out(run: Run, store: SqlStore) -> None:
    """Nothing is queued where nobody wants it."""
    _signed_in(store)
    assert run("sessions", "revoke", "--user", "ada").exit_code == 0
    assert _listed(run) == []


def test_watch_wants_the_settings_of_the_service(run: Run) -> None:
    """Exit 2 with the fault."""
    result = run("deliveries", "watch", PYLON_JWT_SECRET="short")
    assert result.exit_code == 2
    assert result.stderr.startswith("PYLON_JWT_SECRET: ")
