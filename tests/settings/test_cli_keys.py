"""docs/keys.md: `pylon-oidc keys`: what will happen, steps that are refused while unsafe, and moving keys in and out."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from service.cli.key_picture import draw_svg, draw_text, marks
from service.keys.ring import DAY_S, KeyRecords, Margins, published, role
from service.keys.rotation import rotated
from service.keys.sealing import SealingKeys
from service.keys.store import RingStore
from service.keys.timeline import coming
from service.settings import ConfigurationError
from service.startup import prepare
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.protocol.test_key_ring import key, whole
from tests.settings.conftest import Run
from tests.settings.reading import modulus
from tests.support.gunicorn import rsa_pem

M = Margins()
ONE, TWO = bytes(range(32)), bytes(range(32, 64))
B64 = {secret: base64.b64encode(secret).decode() for secret in (ONE, TWO)}
ENVIRON = {
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": B64[ONE],
    "PYLON_OIDC_ALGS": "ES256,Ed25519",
}
AGO_S = 5000


class Operator:
    """Runs `pylon-oidc keys …` on a ring that is some time old."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self.folder = folder
        self._path = folder / "data" / "pylon.db"

    def begin(self, ago_s: int = AGO_S, *, margins: Margins = M) -> None:
        """The ring as a service has made it so long ago."""
        self._run.have_database()
        store = SqlStore(SqliteDatabase(self._path))
        RingStore(store, SealingKeys((ONE,)), ["ES256", "Ed25519"]).ensure(
            margins, now=int(time.time()) - ago_s
        )
        store.close()

    def do(self, *arguments: str, exit_code: int = 0, **environ: str) -> Any:
        """Run a command; its result."""
        result = self._run("keys", *arguments, **ENVIRON | environ)
        assert result.exit_code == exit_code, result.output
        return result

    def listed(self, *arguments: str, **environ: str) -> list[dict[str, Any]]:
        """What `keys list` says."""
        shown: list[dict[str, Any]] = json.loads(self.do("list", "--json", *arguments, **environ).stdout)[
            "keys"
        ]
        return shown

    def roles(self) -> dict[str, list[str]]:
        """The roles of each algorithm's keys, those that are gone too."""
        told: dict[str, list[str]] = {}
        for each in self.listed("--all"):
            told.setdefault(each["alg"], []).append(each["role"])
        return told


@pytest.fixture
def operator(run: Run, tmp_path: Path) -> Operator:
    """On a ring in which a rotation is safe."""
    made = Operator(run, tmp_path)
    made.begin()
    return made


def audit(result: Any) -> list[dict[str, Any]]:
    """The audit lines."""
    return [json.loads(line) for line in result.stderr.splitlines() if '"audit"' in line]


# --- looking ---


def test_list_tells_roles_and_times(operator: Operator) -> None:
    """`keys list`; a table and JSON."""
    keys = operator.listed()
    assert [(each["alg"], each["role"]) for each in keys] == [
        ("ES256", "active"),
        ("ES256", "next"),
        ("Ed25519", "active"),
        ("Ed25519", "next"),
    ]
    assert keys[0]["retires_at"] == keys[1]["signs_from"] == keys[0]["signs_from"] + M.rotation_s
    table = operator.do("list", "--wide").stdout
    assert all(each["kid"] in table for each in keys)
    assert all(each["kid"][:6] in operator.do("list").stdout for each in keys)


def test_without_a_database_a_command_says_how_to_make_it(run: Run, tmp_path: Path) -> None:
    """docs/cli.md: and makes no file."""
    result = run("keys", "list", **ENVIRON)
    assert (result.exit_code, result.stderr) == (
        1,
        "There is no database yet: the first start creates it, or run: pylon-oidc migrate\n",
    )
    assert not (tmp_path / "data").exists()


def test_without_a_ring_there_is_nothing_to_list_and_nothing_to_rotate(run: Run) -> None:
    """docs/cli.md: exit 1 for a failed operation."""
    run.have_database()
    assert json.loads(run("keys", "list", "--json", **ENVIRON).stdout) == {"keys": []}
    for command in (("plan",), ("rotate",), ("revoke", "x"), ("reseal",), ("export-public",)):
        result = run("keys", *command, **ENVIRON)
        assert (result.exit_code, "no key ring" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", ["list", "plan"])
def test_tables_of_keys_fit_a_terminal(operator: Operator, command: str) -> None:
    """docs/cli.md: 80 columns, and a date of a day and a minute; `--wide` shows all."""
    narrow, wide = operator.do(command).stdout, operator.do(command, "--wide").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert max(map(len, wide.splitlines())) > 80
    assert not re.search(r"True|False", narrow + wide)


def test_plan_tells_each_change_with_time_and_reason(operator: Operator) -> None:
    """`keys plan` prints the timeline: a table, a picture, each change with the reason why it is safe."""
    text = operator.do("plan", "--wide").stdout
    assert "│" in text and "█" in text and "·" in text
    assert "its successor signs from that second on" in text
    assert "ES256: a rotation by hand is safe now." in text
    told = json.loads(operator.do("plan", "--json").stdout)
    assert {change["what"] for change in told["changes"]} == {"is made", "signs", "retires", "goes"}
    assert all(change["at"] > told["now"] and change["reason"] for change in told["changes"])
    assert told["rotation_is_safe_at"]["ES256"] <= told["now"]


def test_plan_draws_a_picture(operator: Operator, tmp_path: Path) -> None:
    """`--svg FILE`; it needs nothing else, and holds a bar for each key."""
    path = tmp_path / "plan.svg"
    operator.do("plan", "--svg", str(path))
    root = ElementTree.fromstring(path.read_text())
    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    for each in operator.listed():
        assert any(title.startswith(each["kid"]) for title in titles)
    assert "http" not in path.read_text().replace("http://www.w3.org/2000/svg", "")


def test_plan_by_hand_has_no_changes(run: Run, tmp_path: Path) -> None:
    """`PYLON_OIDC_KEY_ROTATION_DAYS` 0: nothing is to come but what an operator does."""
    operator = Operator(run, tmp_path)
    operator.begin(AGO_S, margins=Margins(rotation_s=0))
    by_hand = {"PYLON_OIDC_KEY_ROTATION_DAYS": "0"}
    assert json.loads(operator.do("plan", "--json", **by_hand).stdout)["changes"] == []
    assert (
        "a rotation by hand is safe now"
        in operator.do("plan", "--svg", str(tmp_path / "x.svg"), **by_hand).stdout
    )
    operator.do("rotate", **by_hand)
    assert operator.roles() == {alg: ["active", "next", "next"] for alg in ("ES256", "Ed25519")}


def _after_a_rotation(now: int, margins: Margins) -> KeyRecords:
    keys = whole(now=now - 5000, margins=margins)
    return whole(rotated(keys, "RS256", now - 2000, margins), now - 2000, margins)


def test_the_bars_show_each_role_and_now() -> None:
    """The picture: one bar a key, now as a line at the same column of all."""
    now = 1_800_000_000
    margins = Margins(rotation_s=7200)
    keys = _after_a_rotation(now, margins)
    shown = published(keys, now)
    assert [role(each, now) for each in shown] == ["retired", "active", "next"]
    lines = draw_text(shown, coming(keys, now, margins), now).splitlines()
    assert len({line.index("│") for line in lines[1:4]}) == 1
    assert ["░" in lines[1], "█" in lines[2], "·" in lines[3]] == [True] * 3


@pytest.mark.parametrize("where", ["missing/plan.svg", "folder"])
def test_a_picture_that_cannot_be_written_is_told(operator: Operator, tmp_path: Path, where: str) -> None:
    """docs/cli.md: a failed operation; the file's fault, not the database's."""
    (tmp_path / "folder").mkdir()
    code = 2 if where == "folder" else 1
    told = operator.do("plan", "--svg", str(tmp_path / where), exit_code=code).stderr
    assert "plan.svg" in told or "is a directory" in told
    assert "database" not in told


def test_what_is_kept_no_more_is_not_overdue(run: Run, tmp_path: Path) -> None:
    """A warning when rotation is overdue; where none can come it names the step that fixes it."""
    operator = Operator(run, tmp_path)
    operator.begin(200 * DAY_S)
    ed25519 = {"PYLON_OIDC_ALGS": "Ed25519"}
    (es256,) = (each["kid"] for each in operator.listed() if each["alg"] == "ES256")
    lines = operator.do("list", **ed25519).stderr.splitlines()
    assert [line for line in lines if es256 in line] == [
        f"warning: ES256 is no longer used, but its key {es256} is still published; run pylon-oidc keys revoke {es256} "
        "when its tokens are no longer needed"
    ]
    assert len([line for line in lines if "is overdue; run pylon-oidc keys rotate" in line]) == 1
    operator.do("revoke", es256, **ed25519)
    assert es256 not in operator.do("list", **ed25519).stderr


def test_a_rotation_is_seen_beside_ninety_days() -> None:
    """The picture: in the minute before a rotation each bar shows what its key is now and will be; and letters tell
    which change is where.
    """
    now = 1_800_000_000
    keys = whole(now=now - 5000)
    keys = whole(rotated(keys, "RS256", now - 10, M), now - 10)
    shown, changes = published(keys, now), coming(keys, now, M)
    active, second, third, letters = draw_text(shown, changes, now).splitlines()[1:5]
    assert [mark in active for mark in "█░"] == [mark in second for mark in "·█░"][1:] == [True] * 2
    assert active.partition("│")[0].endswith("█") and third.partition("│")[0].endswith("·")
    assert letters.split() == ["a", "b", "c", "d", "e"]
    assert letters.index("a") == active.index("░") == second.index("█")
    assert list(marks(changes)) == sorted({change.at for change in changes})


def test_an_overdue_key_is_named_so_in_the_picture(run: Run, tmp_path: Path) -> None:
    """A warning when rotation is overdue."""
    operator, by_hand = Operator(run, tmp_path), {"PYLON_OIDC_KEY_ROTATION_DAYS": "0"}
    operator.begin(400 * DAY_S, margins=Margins(rotation_s=0))
    path = tmp_path / "plan.svg"
    assert operator.do("plan", "--svg", str(path), **by_hand).stdout.count("active, overdue") == 2
    assert path.read_text().count("active, overdue") == 2


def test_a_kid_is_no_markup() -> None:
    """An imported kid may hold any visible character."""
    now = 1_800_000_000
    keys = (key("<script>&", published_at=now - 9, signs_from=now - 9), key("k2", published_at=now))
    ElementTree.fromstring(draw_svg(keys, coming(keys, now, M), now))


def test_export_public_prints_the_key_set(operator: Operator) -> None:
    """`keys export-public`: only public members; one key, also as a PEM."""
    exported = json.loads(operator.do("export-public").stdout)["keys"]
    assert [each["kid"] for each in exported] == [each["kid"] for each in operator.listed()]
    assert all("d" not in each for each in exported)
    kid = exported[0]["kid"]
    assert json.loads(operator.do("export-public", kid).stdout) == exported[0]
    pem = operator.do("export-public", "--pem", kid).stdout
    assert isinstance(load_pem_public_key(pem.encode()), ec.EllipticCurvePublicKey)
    operator.do("export-public", "nobody", exit_code=1)
    operator.do("export-public", "--pem", exit_code=2)


# --- rotating ---


def test_rotate_lets_the_next_key_sign(operator: Operator) -> None:
    """`keys rotate`; the old key stays published for the tokens that it signed; an audit line."""
    before = operator.listed()
    result = operator.do("rotate", "--json")
    done = {each["alg"]: each for each in json.loads(result.stdout)["rotated"]}
    assert set(done) == {"ES256", "Ed25519"}
    told = done["ES256"]
    assert (told["kid"], told["successor"]) == (before[0]["kid"], before[1]["kid"])
    assert 0 < told["signs_from"] - time.time() <= 60
    assert told["published_until"] == told["signs_from"] + M.longest_token_s + M.linger_s
    assert [line["action"] for line in audit(result)] == ["keys.rotate"] * 2
    assert operator.roles() == {alg: ["active", "next", "next"] for alg in ("ES256", "Ed25519")}


def test_rotate_may_be_for_one_algorithm(operator: Operator) -> None:
    """The others stay as they are."""
    operator.do("rotate", "--alg", "ES256")
    assert {alg: len(roles) for alg, roles in operator.roles().items()} == {"ES256": 3, "Ed25519": 2}
    operator.do("rotate", "--alg", "RS256", exit_code=1)
    operator.do("rotate", "--alg", "HS256", exit_code=2)


@pytest.mark.parametrize("command", [("rotate",), ("rotate", "--compromised"), ("plan",)])
def test_a_shell_without_the_rotation_s_length_keeps_that_of_the_ring(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """`PYLON_OIDC_KEY_ROTATION_DAYS` 0: by hand. A command that does not know it lets nothing rotate by itself."""
    operator = Operator(run, tmp_path)
    operator.begin(margins=Margins(rotation_s=0))
    operator.do(*command)
    assert {each["signs_from"] for each in operator.listed() if each["role"] == "next"} <= {
        None,
        *(each["retires_at"] for each in operator.listed() if each["role"] == "active"),
    }
    assert "overdue" not in operator.do("list").stderr


def test_an_unsafe_rotation_is_refused_and_says_when_it_is_safe(run: Run, tmp_path: Path) -> None:
    """`keys rotate` refuses an unsafe step and says when it will be safe; nothing has changed."""
    operator = Operator(run, tmp_path)
    operator.begin(100)
    before = operator.listed()
    result = operator.do("rotate", exit_code=1)
    assert "Refused: a verifier may still have a key set without the next key." in result.stderr
    assert (
        "It is safe from 20" in result.stderr and " in 500 s." in result.stderr
    ) or " in 499 s." in result.stderr
    assert operator.listed() == before
    assert audit(result) == []


def test_a_second_rotation_is_refused(operator: Operator) -> None:
    """While the first is under way."""
    operator.do("rotate")
    assert "under way" in operator.do("rotate", exit_code=1).stderr


def test_compromised_does_it_at_once_and_says_who_is_affected(operator: Operator) -> None:
    """`--compromised` does it at once, says exactly who is affected until when, and writes an audit line."""
    before = operator.listed()
    result = operator.do("rotate", "--alg", "ES256", "--compromised", "--json")
    (told,) = json.loads(result.stdout)["rotated"]
    now = told["signs_from"]
    assert told["accepted_until"] == now + M.learn_s + M.max_age_s
    assert told["affected_until"] == now + M.longest_token_s
    assert told["unknown_until"] == now  # it has been published for long
    (line,) = audit(result)
    assert (line["compromised"], line["kid"]) == (True, before[0]["kid"])
    assert [each["role"] for each in operator.listed("--all") if each["kid"] == before[0]["kid"]] == ["gone"]
    assert operator.listed()[0]["kid"] == before[1]["kid"]


def test_compromised_in_words(run: Run, tmp_path: Path) -> None:
    """For the operator in a hurry, also where verifiers cannot know the next key yet."""
    operator = Operator(run, tmp_path)
    operator.begin(100)
    text = operator.do("rotate", "--compromised").stdout
    assert "is removed" in text and "need new ones" in text
    assert "published a short while ago" in text


def test_compromised_without_a_key_that_could_follow_is_done_and_told(run: Run, tmp_path: Path) -> None:
    """An algorithm that is no longer configured: its last key is still revoked, and then nothing signs with it."""
    operator = Operator(run, tmp_path)
    operator.begin(91 * DAY_S)
    es256 = {"PYLON_OIDC_ALGS": "Ed25519"}
    assert operator.roles()["ES256"] == ["active", "gone"]
    result = operator.do("rotate", "--alg", "ES256", "--compromised", **es256)
    assert operator.roles()["ES256"] == ["gone", "gone"]
    assert "nothing signs with ES256 any more" in result.stdout and "is removed" in result.stdout
    (line,) = audit(result)
    assert (line["successor"], line["compromised"]) == (None, True)
    assert operator.do("rotate", "--alg", "ES256", "--compromised", exit_code=1, **es256).stderr.startswith(
        "Refused"
    )


def test_compromised_where_a_new_key_follows_names_it(run: Run, tmp_path: Path) -> None:
    """A ring that nobody rotated has no next key: one is made, and verifiers do not know it yet."""
    operator = Operator(run, tmp_path)
    operator.begin(91 * DAY_S)
    (told,) = json.loads(operator.do("rotate", "--alg", "ES256", "--compromised", "--json").stdout)["rotated"]
    active = next(each for each in operator.listed() if each["alg"] == "ES256" and each["role"] == "active")
    assert (told["successor"], told["signs_from"]) == (active["kid"], active["signs_from"])
    assert told["unknown_until"] == told["signs_from"] + M.lead_s


def test_revoke_takes_any_key_away(operator: Operator) -> None:
    """`keys revoke`: the active one is followed, the next one is replaced."""
    active, waiting = (each["kid"] for each in operator.listed()[:2])
    result = operator.do("revoke", waiting)
    assert audit(result)[0]["kid"] == waiting
    operator.do("revoke", active)
    assert operator.roles()["ES256"] == ["active", "next", "gone", "gone"]
    operator.do("revoke", active, exit_code=1)
    operator.do("revoke", "nobody", exit_code=1)


# --- the encryption key ---


def test_reseal_moves_to_the_first_encryption_key(operator: Operator, run: Run) -> None:
    """`keys reseal`; a warning as long as another one is in use, wherever an operator looks."""
    both = {"PYLON_KEY_ENCRYPTION_KEY": f"{B64[TWO]},{B64[ONE]}"}
    told = (
        f"PYLON_KEY_ENCRYPTION_KEY: 4 private keys are sealed under its key 2 ({SealingKeys((ONE,)).names[0]}) and not "
        "under its first; run pylon-oidc keys reseal before you remove that one"
    )
    for command in (("list",), ("list", "--json"), ("plan",), ("plan", "--json")):
        assert operator.do(*command, **both).stderr == f"warning: {told}\n"
    assert f"warning: {told}" in run("check", **ENVIRON | both).stdout.splitlines()
    assert told in json.loads(run("check", "--json", **ENVIRON | both).stdout)["warnings"]
    assert "Sealed 4 private keys" in operator.do("reseal", **both).stdout
    assert operator.do("list", **both).stderr == ""
    assert "Sealed 0 private keys" in operator.do("reseal", PYLON_KEY_ENCRYPTION_KEY=B64[TWO]).stdout


def test_an_encryption_key_that_was_dropped_too_soon_is_named(operator: Operator) -> None:
    """Looking at the ring shows which one is missing; a step that changes something is refused, and changes nothing."""
    name = SealingKeys((ONE,)).names[0]
    wrong = {"PYLON_KEY_ENCRYPTION_KEY": B64[TWO]}
    before = operator.listed("--all")
    for command in (("list",), ("plan",)):
        assert f"written under the key {name}, but this service has" in operator.do(*command, **wrong).stderr
    refused = (("rotate",), ("rotate", "--compromised"), ("reseal",), ("revoke", before[0]["kid"]))
    for command in (*refused, ("export-public",)):
        told = operator.do(*command, exit_code=1, **wrong).stderr
        assert f"written under the key {name}, but this service has" in told and '"audit"' not in told
        assert "keys reseal --repair" in told
    assert operator.listed("--all") == before


def test_a_ring_whose_encryption_key_is_lost_is_repaired(operator: Operator) -> None:
    """docs/keys.md: every key is taken away, new ones are sealed under the key that is here, and the log says so."""
    lost = {"PYLON_KEY_ENCRYPTION_KEY": B64[TWO]}
    before = {key["kid"] for key in operator.listed()}
    told = operator.do("reseal", "--repair", **lost)
    assert all(f"Removed {kid}" in told.stdout for kid in before)
    (audit,) = [json.loads(line) for line in told.stderr.splitlines() if '"audit"' in line]
    assert set(audit["removed"]) == before
    after = json.loads(operator.do("list", "--json", **lost).stdout)["keys"]
    assert len(after) == 4 and not before & {key["kid"] for key in after}


def test_a_ring_that_was_forged_is_said_and_repaired(operator: Operator, run: Run) -> None:
    """docs/keys.md: a start and `check` refuse it and name the step; that one keeps our keys, and none of theirs."""
    environ = ENVIRON | {"PYLON_DATA_DIR": str(operator.folder / "data")}
    ours = [key["kid"] for key in operator.listed()]
    with contextlib.closing(sqlite3.connect(operator.folder / "data" / "pylon.db")) as database, database:
        (text,) = database.execute("SELECT body FROM key_ring WHERE body LIKE '%jwk%'").fetchone()
        body = json.loads(text)
        theirs = body["keys"][0] | {"kid": "theirs", "retires_at": 1, "sealed": None}
        body["keys"].append(theirs | {"jwk": theirs["jwk"] | {"kid": "theirs"}})
        database.execute("UPDATE key_ring SET body = ? WHERE body LIKE '%jwk%'", (json.dumps(body),))
    told = run("check", **environ)
    assert told.exit_code == 2
    assert told.stderr.startswith(
        "PYLON_KEY_ENCRYPTION_KEY: the ring of keys in the database was written or changed"
    )
    assert "pylon-oidc keys reseal --repair" in told.stderr
    with pytest.raises(ConfigurationError) as caught:
        prepare(environ, clock=time.time)
    assert str(caught.value) == told.stderr.strip()
    shown = operator.do("list")
    assert "theirs" in shown.stdout and "written or changed" in shown.stderr
    assert "theirs" not in operator.do("export-public", exit_code=1).stdout
    assert "Removed theirs" in operator.do("reseal", "--repair").stdout
    assert [key["kid"] for key in operator.listed()] == ours
    assert run("check", **environ).exit_code == 0


def test_a_wrong_encryption_key_is_told(operator: Operator, run: Run) -> None:
    """Each fault has its own message; `check` says so too, and the service would not start."""
    wrong = {"PYLON_KEY_ENCRYPTION_KEY": B64[TWO]}
    assert "PYLON_KEY_ENCRYPTION_KEY: the ring" in operator.do("reseal", exit_code=1, **wrong).stderr
    result = run("check", **ENVIRON | wrong)
    assert result.exit_code == 2
    assert result.stderr.startswith("PYLON_KEY_ENCRYPTION_KEY: the ring")
    assert run("check", **ENVIRON).exit_code == 0


def test_a_missing_encryption_key_is_told_beside_other_faults(operator: Operator, run: Run) -> None:
    """docs/cli.md: every fault at once: by `check`, and by a start."""
    wrong = ENVIRON | {"PYLON_KEY_ENCRYPTION_KEY": B64[TWO], "PYLON_JWT_LIFETIME_SECS": "0"}
    told = run("check", **wrong)
    assert told.exit_code == 2
    assert [line.partition(":")[0] for line in told.stderr.splitlines()] == [
        "PYLON_JWT_LIFETIME_SECS",
        "PYLON_KEY_ENCRYPTION_KEY",
    ]
    data = {"PYLON_DATA_DIR": str(operator.folder / "data")}
    with pytest.raises(ConfigurationError) as caught:
        prepare(wrong | data, clock=time.time)
    assert str(caught.value).splitlines() == told.stderr.splitlines()


def test_check_tells_the_ring_and_leaves_it(operator: Operator, run: Run) -> None:
    """docs/cli.md: `check` makes nothing."""
    before = operator.listed()
    shown = run("check", **ENVIRON).stdout
    assert all(f"published key: {each['kid']} ({each['alg']}), {each['role']}" in shown for each in before)
    assert operator.listed() == before


# --- moving ---


def _pem(folder: Path, private: Any, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    path = folder / "key.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def rsa_file(tmp_path: Path) -> str:
    """The key of `PYLON_OIDC_KEY_PATH`."""
    path = tmp_path / "signing.pem"
    path.write_text(rsa_pem())
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "environ", "kid"),
    [
        ((), {}, "thumbprint"),
        (("--kid", "my-old-key"), {}, "my-old-key"),
        (("--pylon-kid",), {}, "pylon"),
        ((), {"PYLON_OIDC_KEYS": "", "PYLON_OIDC_JWKS_KID": "named"}, "named"),
        ((), {"PYLON_OIDC_KEYS": "", "PYLON_OIDC_JWKS_RSA_N": "<modulus>"}, "pylon-default"),
    ],
)
def test_an_imported_key_keeps_its_name(
    run: Run, tmp_path: Path, rsa_file: str, arguments: tuple[str, ...], environ: dict[str, str], kid: str
) -> None:
    """Moving from one key, and from Pylon's file, to the ring keeps the old kid published, before the ring is
    switched on too: it still signs.
    """
    operator = Operator(run, tmp_path)
    run.have_database()
    number = load_pem_private_key(rsa_pem().encode(), None).public_key().public_numbers().n
    names = {
        "pylon": hashlib.sha256(number.to_bytes(256, "big")).hexdigest()[:16],
        "thumbprint": _thumbprint(),
    }
    given = {name: value.replace("<modulus>", modulus()) for name, value in environ.items()}
    operator.do("import", rsa_file, *arguments, **{"PYLON_OIDC_ALGS": "RS256"} | given)
    key = operator.listed()[0]
    assert (key["kid"], key["alg"], key["role"], key["imported"]) == (
        names.get(kid, kid),
        "RS256",
        "active",
        True,
    )


def _thumbprint() -> str:
    text = f'{{"e":"AQAB","kty":"RSA","n":"{modulus()}"}}'
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def test_an_imported_key_of_a_kept_algorithm_only_verifies(operator: Operator, tmp_path: Path) -> None:
    """Where one signs already, it is published for the tokens that it signed; or comes next, for the way back."""
    path = _pem(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    assert "retired" in operator.do("import", path, "--kid", "old").stdout
    operator.do("import", path, "--kid", "old", exit_code=1)
    path = _pem(tmp_path, ed25519.Ed25519PrivateKey.generate())
    result = operator.do("import", path, "--kid", "mine", "--next")
    assert audit(result)[0]["kid"] == "mine"
    waiting = [each for each in operator.listed() if each["role"] == "next"]
    assert next(each["kid"] for each in waiting if each["alg"] == "Ed25519") == "mine"


@pytest.mark.parametrize(("algs", "expected"), [("ES256", "retired"), ("ES256,PS256", "active")])
def test_a_key_may_be_for_ps256(operator: Operator, rsa_file: str, algs: str, expected: str) -> None:
    """`--alg`; it signs only where the algorithm is kept."""
    operator.do("import", rsa_file, "--alg", "PS256", PYLON_OIDC_ALGS=algs)
    assert [operator.listed()[0][name] for name in ("alg", "role")] == ["PS256", expected]


def test_what_is_no_key_of_ours_is_refused(operator: Operator, tmp_path: Path, rsa_file: str) -> None:
    """Sizes, kinds, passphrases; nothing of the file is shown."""
    wrong = [
        _pem(tmp_path / "a", key)
        for key in (
            rsa.generate_private_key(65537, 1024),
            ec.generate_private_key(ec.SECP384R1()),
        )
        if (tmp_path / "a").mkdir(exist_ok=True) is None
    ][-1:]
    (tmp_path / "b").mkdir()
    wrong += [_pem(tmp_path / "b", rsa.generate_private_key(65537, 1024))]
    (tmp_path / "c").mkdir()
    wrong += [_pem(tmp_path / "c", ed25519.Ed25519PrivateKey.generate(), b"a passphrase")]
    (tmp_path / "text").write_text("canary7f3a")
    for path in [*wrong, str(tmp_path / "text"), str(tmp_path / "missing")]:
        result = operator.do("import", path, exit_code=1)
        assert "canary7f3a" not in result.output and len(result.stderr.splitlines()) == 1
    operator.do("import", rsa_file, "--alg", "ES256", exit_code=1)
    operator.do("import", rsa_file, "--kid", "a", "--pylon-kid", exit_code=2)
    for kid in ("", "a b", "é", "x" * 256):
        assert operator.do("import", rsa_file, "--kid", kid, exit_code=2)


def test_faults_of_the_keys_settings_end_a_command(operator: Operator) -> None:
    """docs/cli.md: exit 2 for a wrong configuration."""
    operator.do("list", exit_code=2, PYLON_KEY_ENCRYPTION_KEY="short")
    operator.do("list", exit_code=2, PYLON_OIDC_ALGS="HS256")


def test_a_key_that_was_taken_away_is_shown_until_it_is_gone(operator: Operator) -> None:
    """`rotate --compromised` says until when workers may sign by it; `keys plan` shows it for as long."""
    before = int(time.time())
    result = operator.do("rotate", "--alg", "ES256", "--compromised", "--json")
    (told,) = json.loads(result.stdout)["rotated"]
    assert before + 60 <= told["signs_until"] <= int(time.time()) + 60
    plan = json.loads(operator.do("plan", "--json").stdout)
    assert plan["removed"] == [{"kid": told["kid"], "alg": "ES256", "until": told["signs_until"]}]
    assert f"{told['kid']} was removed" in operator.do("plan").stdout
    words = operator.do("rotate", "--alg", "Ed25519", "--compromised").stdout
    assert "Workers may still sign with it" in words


def test_plan_announces_no_key_of_what_is_kept_no_more(operator: Operator) -> None:
    """An algorithm that was taken out of `PYLON_OIDC_ALGS` gets no new key, and no rotation by hand is offered."""
    plan = json.loads(operator.do("plan", "--json", PYLON_OIDC_ALGS="Ed25519").stdout)
    assert {change["alg"] for change in plan["changes"] if change["what"] == "is made"} == {"Ed25519"}
    assert list(plan["rotation_is_safe_at"]) == ["Ed25519"]


def test_a_ring_of_a_clock_ahead_can_be_rotated(run: Run, tmp_path: Path) -> None:
    """The refusal of a first try sets the ring right: it names eleven minutes, not the days that the clock was ahead."""
    operator = Operator(run, tmp_path)
    operator.begin(-40 * DAY_S)
    refused = operator.do("rotate", exit_code=1)
    seconds = int(refused.stderr.rpartition("in ")[2].split()[0])
    assert seconds <= M.lead_s
    assert all(key["published_at"] <= time.time() for key in operator.listed())


def test_a_backup_that_is_restored_is_said_and_brings_no_key_back(operator: Operator, run: Run) -> None:
    """docs/security.md: a start and `check` say that the ring is older than this host has seen, and name what to do; the key that
    was taken away stays away.
    """
    environ = ENVIRON | {"PYLON_DATA_DIR": str(operator.folder / "data")}
    path = operator.folder / "data" / "pylon.db"
    assert prepare(environ, clock=time.time).warnings == prepare(environ, clock=time.time).warnings
    backup = sqlite3.connect(":memory:")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.backup(backup)
    kid = operator.listed()[0]["kid"]
    operator.do("revoke", kid)
    operator.do("rotate", "--alg", "Ed25519")
    assert not [each for each in prepare(environ, clock=time.time).warnings if "older" in each]
    with contextlib.closing(sqlite3.connect(path)) as database, contextlib.closing(backup):
        backup.backup(database)
    assert kid in [key["kid"] for key in operator.listed()]
    told = run("check", **environ)
    assert (told.exit_code, "older" in told.stdout, "pylon-oidc keys revoke" in told.stdout) == (
        0,
        True,
        True,
    )
    prepared = prepare(environ, clock=time.time)
    (said,) = [each for each in prepared.warnings if "older" in each]
    assert str(operator.folder / "data" / "key-ring-seen.json") in said
    assert kid not in [key["kid"] for key in operator.listed()] + [
        key.kid for key in prepared.keyring.published
    ]


def test_replicas_that_differ_are_said(operator: Operator, run: Run, subtests: pytest.Subtests) -> None:
    """A start and `check` say that another replica keeps other algorithms, or rotates by other days; only for a time."""
    environ = ENVIRON | {"PYLON_DATA_DIR": str(operator.folder / "data")}
    now = time.time()

    def told(at: float, **settings: str) -> list[str]:
        warnings = prepare(environ | settings, clock=lambda: at).warnings
        return [each for each in warnings if "replicas differ" in each]

    assert told(now) == told(now) == []
    for name, settings, said in (
        ("days", {"PYLON_OIDC_KEY_ROTATION_DAYS": "30"}, ("ES256, Ed25519", "90 days", "30 days")),
        ("algorithms", {"PYLON_OIDC_ALGS": "ES256"}, ("uses ES256, Ed25519 and", "uses ES256 and")),
        ("by hand", {"PYLON_OIDC_KEY_ROTATION_DAYS": "0"}, ("90 days", "rotates by hand")),
    ):
        with subtests.test(name):
            checked = run("check", **environ | settings).stdout
            assert all(words in checked for words in (*said, "replicas differ"))
            (warning,) = told(now, **settings)
            assert all(words in warning for words in said)
            # The first replica warns of the other one, until that has been away for twenty minutes.
            assert "replicas differ" in run("check", **environ).stdout
            now += 1201
            assert told(now) == []
            now -= 1201  # `check` goes by the clock of the machine
            with contextlib.closing(sqlite3.connect(operator.folder / "data" / "pylon.db")) as database:
                database.execute("UPDATE key_ring SET body = json_remove(body, '$.kept_by')")
                database.commit()
            assert told(now) == []
    with subtests.test("a client in the environment, where the database has clients: both keep RS256"):
        registered = (
            "add",
            "--client-id",
            "c-1",
            "--redirect-uri",
            "https://rp.example.org/cb",
            "--name",
            "C",
        )
        added = run("clients", *registered, **environ)
        assert added.exit_code == 0, added.output
        assert told(now, PYLON_OIDC_ALGS="RS256,ES256,Ed25519") == []


def test_a_step_by_hand_is_remembered_by_the_host_that_took_it(operator: Operator, run: Run) -> None:
    """A backup is restored before any worker has looked: `check` and `keys list` say so, a start takes the key away."""
    environ = ENVIRON | {"PYLON_DATA_DIR": str(operator.folder / "data")}
    prepare(environ, clock=time.time)
    path = operator.folder / "data" / "pylon.db"
    backup = sqlite3.connect(":memory:")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.backup(backup)
    (taken,) = json.loads(operator.do("rotate", "--compromised", "--alg", "ES256", "--json").stdout)[
        "rotated"
    ]
    with contextlib.closing(sqlite3.connect(path)) as database, contextlib.closing(backup):
        backup.backup(database)
    assert taken["kid"] in [key["kid"] for key in operator.listed()]
    for told in (run("check", **environ).stdout, operator.do("list").stderr, operator.do("plan").stderr):
        assert "the ring of keys in the database is older" in told
    prepared = prepare(environ, clock=time.time)
    assert any("the ring of keys in the database is older" in each for each in prepared.warnings)
    assert taken["kid"] not in [key.kid for key in prepared.keyring.published]


def test_a_step_by_hand_makes_no_folder_where_the_service_has_none(
    operator: Operator, tmp_path: Path
) -> None:
    """On a machine that is not the service's there is nothing to remember, and nothing is left behind."""
    elsewhere = tmp_path / "elsewhere"
    url = f"sqlite:///{operator.folder / 'data' / 'pylon.db'}"
    operator.do("rotate", "--compromised", PYLON_DATA_DIR=str(elsewhere), DATABASE_URL=url)
    assert not elsewhere.exists()


def test_a_ring_that_is_one_version_older_is_said_although_the_start_writes_the_next(
    operator: Operator, run: Run
) -> None:
    """docs/security.md: what the start takes away makes it as many versions as were seen; it is said all the same."""
    environ = ENVIRON | {"PYLON_DATA_DIR": str(operator.folder / "data")}
    path = operator.folder / "data" / "pylon.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        before = database.execute("SELECT * FROM key_ring").fetchall()
    kid = operator.listed()[0]["kid"]
    operator.do("revoke", kid)
    prepare(environ, clock=time.time)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM key_ring")
        marks = ",".join("?" * len(before[0]))
        database.executemany(f"INSERT INTO key_ring VALUES ({marks})", before)
    assert "older" in run("check", **environ).stdout
    prepared = prepare(environ, clock=time.time)
    assert [each for each in prepared.warnings if "older" in each]
    assert kid not in [key.kid for key in prepared.keyring.published]
