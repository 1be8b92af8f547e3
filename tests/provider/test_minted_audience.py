"""RFC 8725 §3.12: a verifier tells an ID token from a minted token by `aud`, so there is always one to tell them by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest

from service.app import get_app
from service.clients import Clients
from service.settings import ConfigurationError
from service.startup import inspect, prepare
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.http.driver import START, refused
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, ISSUER, LOGIN_URL
from tests.settings.conftest import Run, run  # noqa: F401 - a fixture
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

SETTING = "PYLON_JWT_AUDIENCE"
METADATA = {"client_id": "c-new", "redirect_uris": [CALLBACK]}
SEALING = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
RS256 = {"PYLON_JWT_ALG": "RS256", "PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_OIDC_ISSUER": ISSUER}
ES256 = {
    "PYLON_JWT_ALG": "ES256",
    "PYLON_OIDC_ALGS": "ES256",
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": SEALING,
    "PYLON_OIDC_ISSUER": ISSUER,
}


def _environ(folder: Path, **environ: str) -> dict[str, str]:
    return {"PYLON_DATA_DIR": str(folder / "data"), "PYLON_LOGIN_URL": LOGIN_URL} | environ


def _with_a_client(folder: Path) -> None:
    """A database in which a client was registered before anybody minted by an asymmetric algorithm."""
    (folder / "data").mkdir(mode=0o700)
    store = SqlStore(SqliteDatabase(folder / "data" / "pylon.db"))
    store.migrate()
    Clients((), store, minted_audience=None).add(METADATA, now=START)
    store.close()


def _told(folder: Path, **environ: str) -> list[str]:
    """The faults that a start and `check` tell; they are the same."""
    given = _environ(folder, **environ)
    faults = inspect(given, now=START).faults
    try:
        prepare(given, clock=lambda: START)
    except ConfigurationError as error:
        assert error.faults == faults
    else:
        assert not faults
    return [str(fault) for fault in faults]


@each_of("settings", [RS256, RS256 | {"PYLON_JWT_ALG": "PS256"}, ES256], ids=["RS256", "PS256", "ES256"])
@each_of("where", ["environment", "database"])
def test_clients_and_an_asymmetric_algorithm_need_an_audience(
    tmp_path: Path, where: str, settings: dict[str, str]
) -> None:
    """RFC 8725 §3.12: A fault that says what to set, whichever way the clients were registered; none with an audience or by HS256."""
    folder = tmp_path / where / settings["PYLON_JWT_ALG"]
    folder.mkdir(parents=True)
    if where == "database":
        _with_a_client(folder)
    else:
        settings = settings | {"PYLON_OIDC_CLIENTS": json.dumps([METADATA])}
    (told,) = _told(folder, **settings)
    assert told.startswith(f"{SETTING}: ")
    assert settings["PYLON_JWT_ALG"] in told
    assert "; write " in told
    assert _told(folder, **settings | {SETTING: "api"}) == []
    assert _told(folder, **settings | {"PYLON_JWT_ALG": "HS256"}) == []


def test_the_fault_is_told_beside_others(tmp_path: Path) -> None:
    """RFC 8725 §3.12: A client in the database is found although something else is wrong; where the audience is wrong, the message says so."""
    _with_a_client(tmp_path)
    told = _told(tmp_path, **RS256, PYLON_ADMIN_TOKEN="short")
    assert [line.partition(":")[0] for line in told] == [SETTING, "PYLON_ADMIN_TOKEN"]
    (told,) = [_told(tmp_path, **RS256, PYLON_JWT_AUDIENCE="a\x07b")]
    assert [line.partition(":")[0] for line in told] == [SETTING]
    assert "control character" in told[0]


def test_without_clients_nothing_is_asked(tmp_path: Path) -> None:
    """RFC 8725 §3.12: No relying party, no ID token: an audience is as free as it was."""
    assert _told(tmp_path, **RS256) == []


def test_no_client_is_registered_while_it_holds(serve_provider: ServeProvider) -> None:
    """RFC 8725 §3.12: 400 `INVALID_CLIENT_METADATA` that names the setting; nothing is stored."""
    op = serve_provider([], PYLON_JWT_ALG="RS256")
    answer = op.app.call("POST", "/api/oidc/clients", METADATA)
    refused(answer, 400, "INVALID_CLIENT_METADATA")
    assert SETTING in answer.json()["error"]["hint"]
    assert op.app.call("GET", "/api/oidc/clients").json() == {"clients": []}
    assert (
        serve_provider([], PYLON_JWT_ALG="RS256", PYLON_JWT_AUDIENCE="api")
        .app.call("POST", "/api/oidc/clients", METADATA)
        .status
        == 201
    )


def test_a_client_that_came_by_another_replica_is_not_served(serve_provider: ServeProvider) -> None:
    """RFC 8725 §3.12: Registered behind this process's back: no code, no change but its removal, and everybody sees why."""
    op = serve_provider([], PYLON_JWT_ALG="RS256")
    store = SqlStore(SqliteDatabase(op.house.settings.data_dir / "pylon.db"))
    Clients((), store, minted_audience="api").add(METADATA, now=START)
    store.close()
    page = op.browser().go(op.rp("c-new").request().url)
    assert (page.answer.status, "c-new" in op.house.log.getvalue()) == (400, True)
    path = "/api/oidc/clients/c-new"
    answer = op.app.call("PUT", path, {"redirect_uris": [CALLBACK]})
    refused(answer, 400, "INVALID_CLIENT_METADATA")
    assert SETTING in answer.json()["error"]["hint"]
    assert [each["client_id"] for each in op.app.call("GET", "/api/oidc/clients").json()["clients"]] == [
        "c-new"
    ]
    assert op.app.call("DELETE", path).status == 204


def test_the_command_line_says_the_same(run: Run) -> None:  # noqa: F811 - the fixture
    """RFC 8725 §3.12: `clients add` fails (exit 1) in the words of the API and of the start; listing and removing still work."""

    def client(*arguments: str, **environ: str) -> Any:
        return run("clients", *arguments, **RS256, PYLON_LOGIN_URL=LOGIN_URL, **environ)

    add = ("add", "--client-id", "c-new", "--redirect-uri", CALLBACK)
    assert run("migrate").exit_code == 0
    refusal = client(*add)
    assert (refusal.exit_code, refusal.stderr.partition(": ")[0]) == (1, SETTING)
    fixed = json.dumps([{"client_id": "fixed", "redirect_uris": [CALLBACK]}])
    beside = client(*add, PYLON_OIDC_CLIENTS=fixed)
    assert (beside.exit_code, beside.stderr) == (1, refusal.stderr)
    assert client(*add, PYLON_JWT_AUDIENCE="api").exit_code == 0
    changed = client("update", "c-new", "--set", "client_name=New")
    assert (changed.exit_code, changed.stderr) == (1, refusal.stderr)
    start = run("check", **RS256, PYLON_LOGIN_URL=LOGIN_URL)
    assert (start.exit_code, refusal.stderr in start.stderr) == (2, True)
    assert "c-new" in client("list").stdout
    assert client("show", "c-new").exit_code == 0
    assert client("remove", "c-new").exit_code == 0
    assert run("check", **RS256).exit_code == 0


def test_the_service_refuses_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8725 §3.12: The application itself is not made."""
    _with_a_client(tmp_path)
    for name, value in _environ(tmp_path, **RS256).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=SETTING):
        get_app()


@pytest.mark.parametrize("alg", ["RS256", "PS256", "HS256"])
def test_no_id_token_has_the_audience_of_a_minted_token(serve_provider: ServeProvider, alg: str) -> None:
    """RFC 8725 §3.12: Whatever a client asks for, at its sign-in or by refresh, `aud` is only the client; a minted one's never is."""
    op = serve_provider(PYLON_JWT_ALG=alg, PYLON_JWT_AUDIENCE="api")
    browser = op.browser()
    session = op.app.sign_in(browser)["token"]
    minted = [
        op.ask("POST", "/api/auth/jwt", token=session, **body) for body in ({}, {"json": {"audience": "api"}})
    ]
    for client_id in ("c-basic", "c-resource"):
        refused(
            op.ask("POST", "/api/auth/jwt", token=session, json={"audience": client_id}),
            400,
            "UNKNOWN_AUDIENCE",
        )
    assert {_aud(answer.json()["token"]) for answer in minted} == {"api"}
    for client in CLIENTS[:2]:
        rp = op.rp(client["client_id"])
        signed = op.sign_in(browser, client["client_id"], way="cookie", scope="openid offline_access")
        refreshed = rp.refresh(signed.tokens["refresh_token"]).json()
        assert {_aud(signed.tokens["id_token"]), _aud(refreshed["id_token"])} == {client["client_id"]}


def _aud(unverified_token: str) -> Any:
    return pyjwt.decode(unverified_token, options={"verify_signature": False})["aud"]
