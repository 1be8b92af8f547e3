"""docs/cli.md: `pylon-oidc clients invite|invitations|uninvite`: a token that registers so many clients, shown once."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.handles import hash_handle
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.settings.conftest import Run
from tests.support.cases import each_of

TOKEN_MODE = {"PYLON_OIDC_REGISTRATION": "token", "PYLON_DEV_MODE": "1"}


@pytest.fixture
def run(run: Run) -> Run:
    """Runs commands on a migrated store."""
    run.have_database()
    return run


def _invited(run: Run, *arguments: str, **environ: str) -> dict[str, Any]:
    result = run("clients", "invite", "--json", *arguments, **TOKEN_MODE | environ)
    assert result.exit_code == 0, result.output
    made: dict[str, Any] = json.loads(result.stdout)
    return made


def _listed(run: Run) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(run("clients", "invitations", "--json").stdout)["invitations"]
    return listed


def test_an_invitation_is_printed_once(tmp_path: Path, run: Run) -> None:
    """docs/cli.md: the token is shown when it is made, and only its hash is stored."""
    result = run("clients", "invite", **TOKEN_MODE)
    made = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert set(made) == {"id", "initial_access_token", "registration_endpoint", "expires"}
    assert made["registration_endpoint"] == "http://localhost:4321/oidc/register"
    token = made["initial_access_token"]
    assert len(token) >= 43 and result.stderr == ""
    with closing(SqlStore(SqliteDatabase(tmp_path / "data" / "pylon.db"))) as store:
        (record,) = store.list(Kind.INVITATION, now=int(time.time()))
    assert record.id_hash == hash_handle(token) and token not in str(record)
    (shown,) = _listed(run)
    assert (shown["id"], shown["uses_left"], shown["metadata"]) == (made["id"], 1, {})
    assert 7 * 86_400 - 60 < shown["expires_at"] - time.time() <= 7 * 86_400
    assert made["id"] in run("clients", "invitations").stdout


@each_of(
    ("given", "in_s"),
    [("30m", 1800), ("12h", 43_200), ("30d", 2_592_000), ("2999-01-31T12:00Z", None), ("2999-01-31", None)],
)
def test_when_it_expires(run: Run, given: str, in_s: int | None) -> None:
    """docs/cli.md: a time from now, or a date."""
    expires_at = _invited(run, "--expires", given)["expires_at"]
    if in_s is None:
        assert time.strftime("%Y-%m-%d", time.gmtime(expires_at)) == "2999-01-31"
    else:
        assert in_s - 60 < expires_at - time.time() <= in_s


@each_of("given", ["0d", "7", "soon", "7w", "2020-01-01", "-1d", ""])
def test_a_time_that_is_none_is_refused(run: Run, given: str) -> None:
    """docs/cli.md: exit code 2, and nothing is made."""
    result = run("clients", "invite", "--expires", given, **TOKEN_MODE)
    assert result.exit_code == 2 and "Write" in result.stderr
    assert _listed(run) == []


@each_of("uses", ["0", "-1", "many"])
def test_a_number_of_uses_that_is_none_is_refused(run: Run, uses: str) -> None:
    """docs/cli.md: exit code 2, and nothing is made."""
    assert run("clients", "invite", "--uses", uses, **TOKEN_MODE).exit_code == 2
    assert _listed(run) == []


def test_its_metadata_is_kept(tmp_path: Path, run: Run) -> None:
    """docs/registration.md: members of the clients that it registers."""
    bounds = {"client_name": "Partner", "scope": "openid", "token_endpoint_auth_method": "none"}
    (tmp_path / "partner.json").write_text(json.dumps(bounds))
    made = _invited(run, "--uses", "3", "--metadata", str(tmp_path / "partner.json"))
    (shown,) = _listed(run)
    assert (shown["uses_left"], shown["metadata"], made["uses"]) == (3, bounds, 3)


@each_of(
    ("text", "said"),
    [
        ("{", "JSON object"),
        ("[]", "JSON object"),
        ("\xff", "JSON object"),
        ('{"first_party": true}', "first_party"),
        ('{"client_id": "mine"}', "client_id"),
        ('{"redirect_uri": "https://a.example/"}', "redirect_uri"),
        ('{"scope": "openid roles"}', "scope"),
        ('{"grant_types": ["client_credentials"]}', "grant_types"),
        ('{"redirect_uris": ["http://a.example/"]}', "redirect_uris"),
        ('{"token_endpoint_auth_method": "private_key_jwt"}', "token_endpoint_auth_method"),
    ],
)
def test_metadata_that_no_such_client_has_is_refused(tmp_path: Path, run: Run, text: str, said: str) -> None:
    """docs/cli.md: exit code 2 with the member, and nothing is made: a mistake is noticed before the token is sent."""
    (tmp_path / "partner.json").write_bytes(text.encode("latin-1"))
    result = run("clients", "invite", "--metadata", str(tmp_path / "partner.json"), **TOKEN_MODE)
    assert result.exit_code == 2 and said in result.stderr
    assert _listed(run) == []


def test_where_registration_is_off_it_says_so(run: Run) -> None:
    """docs/cli.md: an invitation that nobody can use is made with a warning."""
    result = run("clients", "invite")
    assert result.exit_code == 0 and "PYLON_OIDC_REGISTRATION is off" in result.stderr


def test_an_invitation_is_withdrawn(run: Run) -> None:
    """docs/cli.md: from then on it registers nobody; one that is not there is exit code 1."""
    first, second = _invited(run), _invited(run)
    assert run("clients", "uninvite", first["id"]).stdout == "Withdrawn.\n"
    assert [each["id"] for each in _listed(run)] == [second["id"]]
    assert run("clients", "uninvite", first["id"]).exit_code == 1
