"""Moving an audience to another algorithm: who has moved, what of the old one still lives, what is safe next (docs/leave-hs256.md)."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.handles import new_id
from service.policies.moving import LEAVES_WITHIN_S, last_tokens, progress, run_of, with_left
from service.policies.values import Migration, Policies, Policy
from service.records.starts import ROLLOUT_S, Run, Starts
from service.startup import prepare
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.policies.test_policy_command import written
from tests.provider.test_policies import KEYS
from tests.settings.conftest import Run as RunCommand
from tests.support.databases import make_migrated
from tests.support.gunicorn import SECRET

LIFE_S: Final = 600
LEAD_S: Final = 660
HS: Final = Policy("api", "HS256", LIFE_S)
ES: Final = Policy("api", "ES256", LIFE_S)
START: Final = 1_800_000_000
MOVING: Final = '[audience.api]\nlifetime_s = 600\nmigrate = {to = "ES256", percent = %d}\n'


def at(percent: int, policy: Policy = HS, to: str = "ES256") -> Policy:
    """The policy with that share moved."""
    return replace(policy, migrate=Migration(to, percent))


def runs_of(*starts: tuple[Policy, int]) -> tuple[Run, ...]:
    """Runs of one start each."""
    return tuple(run_of(policy, when) for policy, when in starts)


# --- who has moved ---


@given(caller=st.text(max_size=40), percent=st.integers(0, 100), more=st.integers(0, 100))
def test_who_has_moved_stays_moved_while_the_share_grows(caller: str, percent: int, more: int) -> None:
    """One caller sees one algorithm; nobody has moved at 0, everybody at 100."""
    moved = Migration("ES256", percent).has_moved(caller)
    assert moved == Migration("ES256", percent).has_moved(caller)
    assert not Migration("ES256", 0).has_moved(caller)
    assert Migration("ES256", 100).has_moved(caller)
    assert not moved or Migration("ES256", max(percent, more)).has_moved(caller)


def test_the_share_is_the_one_that_is_written(subtests: pytest.Subtests) -> None:
    """Of many sessions about so many of a hundred have moved: ids are random, so ±5 standard deviations."""
    sids = [new_id() for _ in range(10_000)]
    for percent in (1, 10, 50, 99):
        with subtests.test(percent=percent):
            counts = Counter(at(percent).alg_for(sid) for sid in sids)
            deviation = (10_000 * percent / 100 * (1 - percent / 100)) ** 0.5
            assert abs(counts["ES256"] - 100 * percent) < 5 * deviation


# --- when the last token of the old algorithm was given ---


def test_the_last_token_is_known_from_the_starts(subtests: pytest.Subtests) -> None:
    """It was given before the last old process ended, and lives as long as the old policy said."""
    with subtests.test("nothing is known"):
        assert last_tokens(()) == {}
    with subtests.test("while it signs there is none"):
        for policy in (HS, at(0), at(10)):
            assert "HS256" not in last_tokens(runs_of((policy, START)))
    with subtests.test("all have moved"):
        given = START + 100 + LEAVES_WITHIN_S
        last = last_tokens(runs_of((HS, START), (at(10), START + 50), (at(100), START + 100)))
        assert (last["HS256"].given_at, last["HS256"].ends_at) == (given, given + LIFE_S)
        assert "ES256" not in last
    with subtests.test("its life was longer then"):
        long = replace(at(10), lifetime_s=86_400)
        last = last_tokens(runs_of((long, START), (at(100), START + 100), (ES, START + 200)))
        assert last["HS256"].ends_at == START + 100 + LEAVES_WITHIN_S + 86_400
    with subtests.test("the first start that is known is no first start"):
        last = last_tokens(runs_of((at(100), START)))
        assert last["HS256"].ends_at == START + LEAVES_WITHIN_S + LIFE_S
    with subtests.test("back again"):
        last = last_tokens(runs_of((at(10), START), (at(0), START + 50)))
        assert last.keys() == {"ES256"}
        assert last_tokens(runs_of((at(100), START), (at(10), START + 50))) == {}


def test_a_process_of_before_that_starts_again_is_counted() -> None:
    """A replica that was forgotten starts with the old settings: what it signs counts from when the next start replaces it."""
    runs = runs_of((at(10), START), (at(100), START + 10), (at(10), START + 20), (at(100), START + 30))
    assert last_tokens(runs)["HS256"].given_at == START + 30 + LEAVES_WITHIN_S


def test_what_still_lives_is_still_taken(subtests: pytest.Subtests) -> None:
    """After `alg` has changed, introspection takes the old one's tokens until the last has ended, and none that ends later."""
    policies = Policies({"api": ES}, file="p.toml")
    runs = {"api": runs_of((HS, START), (ES, START + 100))}
    ends_at = START + 100 + LEAVES_WITHIN_S + LIFE_S
    with subtests.test("while one lives"):
        policy = with_left(policies, runs, now=ends_at - 1).tables["api"]
        assert policy.left == {"HS256": ends_at}
        assert policy.algs_of_shown == ("ES256", "HS256")
        assert policy.may_live("HS256", ends_at) and not policy.may_live("HS256", ends_at + 1)
        assert policy.signing_algs == ("ES256",)
    with subtests.test("when none does"):
        assert with_left(policies, runs, now=ends_at).tables["api"] == ES
    with subtests.test("what is not known"):
        assert with_left(policies, {}, now=START).tables["api"] == ES


def test_each_step_is_said_and_when_it_is_safe(subtests: pytest.Subtests) -> None:
    """docs/leave-hs256.md: forward, and back."""
    ended = LEAVES_WITHIN_S + LIFE_S
    cases = {
        "other settings": (at(10), [(HS, 0)], 10, "restart every process", None),
        "never started": (HS, [], 10, "restart every process", None),
        "at the beginning": (HS, [(HS, 0)], 10, 'write migrate = {to = "ES256", percent = 0}', None),
        "prepared": (at(0), [(HS, 0), (at(0), 100)], 110, "write percent = 10, when every verifier takes ES256", 100 + LEAD_S),
        "a part": (at(10), [(at(0), 0), (at(10), 100)], 110, "write percent = 100, when no verifier has refused", 100),
        "all, just now": (at(100), [(at(10), 0), (at(100), 100)], 110, "wait until the last token that HS256 signed has ended, then", 100 + ended),
        "all, later": (at(100), [(at(10), 0), (at(100), 100)], 100 + ended, 'write alg = "ES256", and leave migrate out', 100 + ended),
        "left, in a hurry": (ES, [(HS, 0), (ES, 100)], 110, "wait until the last token that HS256 signed has ended, then", 100 + ended),
        "left": (ES, [(at(10), 0), (at(100), 100), (ES, 9000)], 9010, "nothing is left to do; no verifier needs the secret", None),
        "never moved": (ES, [(ES, 0)], 10, "nothing to do", None),
        "back": (at(0), [(at(10), 0), (at(0), 100)], 110, "wait until the last token that ES256 signed has ended, then leave migrate out", 100 + ended),
        "back, later": (at(0), [(at(10), 0), (at(0), 100)], 100 + ended, "write percent = 10", 100 + LEAD_S),
        "the other way": (at(0, ES, "HS256"), [(ES, 0), (at(0, ES, "HS256"), 9)], 10, "write percent = 10, when every verifier takes HS256", 9 + LEAD_S),
        "the other way, at once": (at(100, ES, "HS256"), [(at(100, ES, "HS256"), 0)], 10, "wait until the last token that ES256 signed", ended),
    }  # fmt: skip
    for name, (policy, starts, now, words, safe_at) in cases.items():
        with subtests.test(name):
            runs = runs_of(*((each, START + when) for each, when in starts))
            found = progress(policy, runs, now=START + now, lead_s=LEAD_S, better="ES256")
            assert found.step.startswith(words)
            assert found.safe_at == (None if safe_at is None else START + safe_at)
    with subtests.test("no key to move to"):
        found = progress(HS, runs_of((HS, START)), now=START, lead_s=LEAD_S, better=None)
        assert "PYLON_OIDC_KEYS=managed" in found.step


# --- what is kept of starts ---


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    """On a real store."""
    make_migrated(tmp_path / "pylon.db")
    return Starts(SqlStore(SqliteDatabase(tmp_path / "pylon.db")))


def note(starts: Starts, policy: Policy, now: int) -> tuple[Run, ...]:
    """Start with that policy."""
    return starts.note({"api": run_of(policy, now)}, now=now)["api"]


def test_starts_are_kept_in_their_order(starts: Starts, subtests: pytest.Subtests) -> None:
    """A start with the same settings is of the same run, and counts until the rollout is over; with others it begins one."""
    assert starts.read(now=START) == {}
    first = note(starts, HS, START)
    assert first == runs_of((HS, START))
    with subtests.test("of the same run"):
        (run,) = note(starts, HS, START + 60)
        assert (run.since, run.latest) == (START, START + 60)
    with subtests.test("after the rollout"):
        (run,) = note(starts, HS, START + ROLLOUT_S + 1)
        assert run.latest == START + 60
    with subtests.test("another one"):
        runs = note(starts, at(10), START + 90_000)
        assert [each.signs for each in runs] == [("HS256",), ("HS256", "ES256")]
        assert runs == starts.read(now=START + 90_000)["api"]
    with subtests.test("each audience has its own"):
        other = replace(ES, audience="other")
        known = starts.note({"other": run_of(other, START + 90_001)}, now=START + 90_001)
        assert known.keys() == {"api", "other"}
        assert known["api"] == runs
    with subtests.test("not without end"):
        for number in range(120):
            runs = note(starts, at(number % 2), START + 100_000 + number)
        assert len(runs) == 50


def test_no_start_of_several_at_once_is_lost(starts: Starts) -> None:
    """Replicas start together, each with an audience of its own."""
    audiences = [f"api-{number}" for number in range(8)]
    barrier = threading.Barrier(len(audiences))

    def start(audience: str) -> None:
        barrier.wait()
        starts.note({audience: run_of(replace(HS, audience=audience), START)}, now=START)

    threads = [threading.Thread(target=start, args=(audience,)) for audience in audiences]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(starts.read(now=START)) == audiences


# --- the command ---


def test_keys_migration_says_where_each_audience_is(
    run: RunCommand,
    tmp_path: Path,
    subtests: pytest.Subtests,
) -> None:
    """`pylon-oidc keys migration`: algorithm now and next, share, the last token of the old one, the next safe step."""
    run.have_database()
    settings = KEYS | {"PYLON_JWT_SECRET": SECRET, "PYLON_OIDC_ISSUER": "https://id.example.com"}
    now = int(time.time())

    def shown(text: str, *, start: bool = True, **more: str) -> dict[str, Any]:
        environ = settings | {"PYLON_POLICIES": written(tmp_path, text)} | more
        if start:
            prepare(environ | {"PYLON_DATA_DIR": str(tmp_path / "data")}, clock=lambda: float(now))
        result = run("keys", "migration", "--json", **environ)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)["audiences"][0]
        table = run("keys", "migration", **environ)
        assert max(map(len, table.stdout.partition("\n\n")[0].splitlines())) <= 80
        assert found["next_step"] in table.stdout
        return found

    with subtests.test("at the beginning"):
        found = shown("[audience.api]\nalg = 'HS256'\nlifetime_s = 600\n")
        assert found == {
            "audience": "api", "alg": "HS256", "to": None, "percent": None, "last_alg": None, "last_issued_at": None,
            "last_expires_at": None, "next_step": 'write migrate = {to = "ES256", percent = 0}', "safe_at": None,
        }  # fmt: skip
    with subtests.test("not started with it"):
        found = shown(MOVING % 10, start=False)
        assert found["next_step"].startswith("restart every process")
    with subtests.test("a part"):
        found = shown(MOVING % 10)
        assert (found["to"], found["percent"], found["last_alg"]) == ("ES256", 10, None)
    with subtests.test("all"):
        found = shown(MOVING % 100)
        assert (found["percent"], found["last_alg"], found["last_expires_at"] - found["last_issued_at"]) == (
            100,
            "HS256",
            600,
        )
        assert found["safe_at"] == found["last_expires_at"] >= now + 600
        assert found["next_step"].startswith("wait until the last token that HS256 signed has ended")
    with subtests.test("explain says the share"):
        (tmp_path / "ada.json").write_text('{"user_id": "ada"}')
        file = ["--file", written(tmp_path, MOVING % 10), "--session-file", str(tmp_path / "ada.json")]
        told = run("policy", "explain", "--audience", "api", *file, **settings)
        assert "(10 % of the callers by ES256), has typ JWT" in told.stdout
        told = run("policy", "explain", "--audience", "api", *file, "--json", **settings)
        assert json.loads(told.stdout)["migrate"] == {"to": "ES256", "percent": 10}
        told = run("policy", "list", *file[:2], "--json", **settings)
        assert json.loads(told.stdout)["audiences"][0]["migrate"] == {"to": "ES256", "percent": 10}
    with subtests.test("without a file"):
        result = run("keys", "migration", "--json", PYLON_JWT_SECRET=SECRET, PYLON_JWT_AUDIENCE="api")
        (row,) = json.loads(result.stdout)["audiences"]
        assert (row["audience"], row["alg"], row["to"]) == ("api", "HS256", None)
        assert "PYLON_POLICIES" in row["next_step"]
    with subtests.test("a fault"):
        result = run(
            "keys", "migration", **settings, PYLON_POLICIES=written(tmp_path, "[audience.api]\nmigrate = 1\n")
        )
        assert result.exit_code == 2
