"""What start-up refuses, and warns of, once there are clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.app import get_app
from service.settings import read_settings
from service.startup import inspect
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, ISSUER, LOGIN_URL, SECRET
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

GOOD = dict(CLIENTS[0])


def _environ(tmp_path: Path, **changes: str | None) -> dict[str, str]:
    usual = {
        "PYLON_DATA_DIR": str(tmp_path),
        "PYLON_OIDC_ISSUER": ISSUER,
        "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
        "PYLON_LOGIN_URL": LOGIN_URL,
        "PYLON_OIDC_CLIENTS": json.dumps([GOOD]),
    }
    given = {**usual, **changes}
    return {name: value for name, value in given.items() if value is not None}


def _faults(tmp_path: Path, **changes: str | None) -> list[str]:
    return [str(fault) for fault in read_settings(_environ(tmp_path, **changes)).faults]


def test_these_settings_are_enough(tmp_path: Path) -> None:
    """docs/settings.md: clients need an issuer, a sign-in page and a key; nothing else."""
    assert _faults(tmp_path) == []


@each_of(
    ("changes", "name", "said"),
    [
        ({"PYLON_OIDC_ISSUER": None}, "PYLON_OIDC_ISSUER", "there are clients"),
        ({"PYLON_LOGIN_URL": None}, "PYLON_LOGIN_URL", "sign-in page"),
        ({"PYLON_OIDC_PRIVATE_KEY": None}, "PYLON_OIDC_CLIENTS", "PYLON_OIDC_KEY_PATH"),
        (
            {"PYLON_OIDC_PRIVATE_KEY": None, "PYLON_JWT_SECRET": "s3cr3t-1f8a9c0b7d6e5f4a3b2c1d0e9f8a7b6c"},
            "PYLON_OIDC_CLIENTS",
            "asymmetric",
        ),
        ({"PYLON_COOKIE_SAME_SITE": "strict"}, "PYLON_COOKIE_SAME_SITE", "lax"),
        ({"PYLON_JWT_AUDIENCE": "c-basic"}, "PYLON_JWT_AUDIENCE", "id of a client"),
        ({"PYLON_LOGIN_URL": "http://app.example.com/"}, "PYLON_LOGIN_URL", "https"),
        ({"PYLON_LOGIN_URL": "javascript:alert(1)"}, "PYLON_LOGIN_URL", "https"),
        ({"PYLON_CONSENT_URL": "https://app.example.com/#x"}, "PYLON_CONSENT_URL", "address"),
        ({"PYLON_LOGOUT_URL": "https://u@app.example.com/"}, "PYLON_LOGOUT_URL", "address"),
        ({"PYLON_OIDC_CODE_LIFETIME_SECS": "61"}, "PYLON_OIDC_CODE_LIFETIME_SECS", "60"),
        ({"PYLON_OIDC_CODE_LIFETIME_SECS": "0"}, "PYLON_OIDC_CODE_LIFETIME_SECS", "1"),
        ({"PYLON_OIDC_REFRESH_GRACE_SECS": "-1"}, "PYLON_OIDC_REFRESH_GRACE_SECS", "0"),
    ],
)
def test_a_wrong_setting_is_a_fault_of_its_own(
    tmp_path: Path, changes: dict[str, str | None], name: str, said: str
) -> None:
    """docs/settings.md: one line `NAME: what is wrong; what to write instead`, and no other."""
    (fault,) = _faults(tmp_path, **changes)
    assert fault.startswith(f"{name}: ") and said in fault and "; " in fault


@each_of(
    "opened",
    [
        {"PYLON_OIDC_REGISTRATION": "open"},
        {"PYLON_OIDC_REGISTRATION": "token"},
        {"PYLON_OIDC_CLIENT_DOCUMENTS": "on"},
    ],
)
@each_of(
    ("changes", "name", "said"),
    [
        ({"PYLON_OIDC_ISSUER": None}, "PYLON_OIDC_ISSUER", "is on"),
        ({"PYLON_LOGIN_URL": None}, "PYLON_LOGIN_URL", "is on"),
        ({"PYLON_OIDC_PRIVATE_KEY": None}, None, "PYLON_OIDC_KEY_PATH"),
        ({"PYLON_COOKIE_SAME_SITE": "strict"}, "PYLON_COOKIE_SAME_SITE", "lax"),
        ({"PYLON_JWT_ALG": "RS256"}, "PYLON_JWT_AUDIENCE", "is unset"),
    ],
)
def test_whom_strangers_can_register_with_needs_the_same(
    tmp_path: Path, changes: dict[str, str | None], name: str | None, said: str, opened: dict[str, str]
) -> None:
    """docs/settings.md#strangers: what clients need is needed before the first one registers itself."""
    usual = {"PYLON_OIDC_CLIENTS": None, **opened}
    assert _faults(tmp_path, **usual) == []
    (fault,) = _faults(tmp_path, **usual, **changes)
    assert fault.startswith(f"{name or next(iter(opened))}: ") and said in fault and "; " in fault


@each_of(
    ("changes", "name"),
    [
        ({"PYLON_OIDC_REGISTRATION": "on"}, "PYLON_OIDC_REGISTRATION"),
        ({"PYLON_OIDC_REGISTRATION_SCOPES": "openid nothing"}, "PYLON_OIDC_REGISTRATION_SCOPES"),
        ({"PYLON_OIDC_REGISTRATION_SCOPES": " "}, "PYLON_OIDC_REGISTRATION_SCOPES"),
        ({"PYLON_OIDC_REGISTRATION_IDLE_DAYS": "0"}, "PYLON_OIDC_REGISTRATION_IDLE_DAYS"),
        ({"PYLON_OIDC_CLIENT_DOCUMENTS": "https://app.example"}, "PYLON_OIDC_CLIENT_DOCUMENTS"),
        ({"PYLON_OIDC_CLIENT_DOCUMENTS": ","}, "PYLON_OIDC_CLIENT_DOCUMENTS"),
        ({"PYLON_OIDC_STRANGER_DEVICES": "yes"}, "PYLON_OIDC_STRANGER_DEVICES"),
    ],
)
def test_what_is_opened_to_strangers_is_said_clearly(
    tmp_path: Path, changes: dict[str, str | None], name: str
) -> None:
    """docs/settings.md#strangers: each refuses what it does not know."""
    (fault,) = _faults(tmp_path, **changes)
    assert fault.startswith(f"{name}: ") and "; write" in fault


def test_strangers_are_kept_out_by_default(tmp_path: Path) -> None:
    """docs/settings.md#strangers: closed; and what they may have, once that changes."""
    settings = read_settings(_environ(tmp_path)).settings
    assert not settings.admits_strangers and not settings.stranger_devices
    assert settings.registration_idle_days == 30
    assert settings.scopes.of_strangers == ("openid", "profile", "email", "offline_access")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """docs/settings.md: a fault of one setting never hides another's."""
    wrong = _faults(
        tmp_path,
        PYLON_OIDC_ISSUER=None,
        PYLON_LOGIN_URL=None,
        PYLON_OIDC_PRIVATE_KEY=None,
        PYLON_COOKIE_SAME_SITE="strict",
    )
    names = {fault.partition(":")[0] for fault in wrong}
    assert names == {"PYLON_OIDC_ISSUER", "PYLON_LOGIN_URL", "PYLON_OIDC_CLIENTS", "PYLON_COOKIE_SAME_SITE"}


def test_in_dev_mode_the_issuer_and_the_page_are_built_in(tmp_path: Path) -> None:
    """docs/settings.md: only outside dev mode these are faults."""
    assert _faults(tmp_path, PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER=None, PYLON_LOGIN_URL=None) == []


@each_of("value", ["{", "{}", "1", "[1]", "null", "[" * 5000])
def test_what_is_no_array_of_clients_is_a_fault(tmp_path: Path, value: str) -> None:
    """docs/settings.md: `PYLON_OIDC_CLIENTS` is a JSON array."""
    (fault,) = _faults(tmp_path, PYLON_OIDC_CLIENTS=value)
    assert fault.startswith("PYLON_OIDC_CLIENTS: ") and "JSON array" in fault


@each_of(
    ("change", "member"),
    [
        ({"redirect_uri": [CALLBACK]}, "redirect_uri: is not known; did you mean redirect_uris?"),
        (
            {"access_token_format": "jwt"},
            "access_token_format: is not known; leave it out: an access token is a JWT if the request names an audience as its resource",
        ),
        ({"redirect_uris": ["http://rp.example.org/cb"]}, "redirect_uris: "),
        ({"redirect_uris": None}, "redirect_uris: "),
        ({"client_secret": "hush-hush-hush"}, "client_secret: "),
        ({"client_id": ""}, "client_id: "),
        ({"client_id": GOOD["client_id"]}, "client_id: "),
        ({"token_endpoint_auth_method": "none"}, "client_secret: "),
        ({"scope": "everything"}, "scope: "),
        ({"logo_uri": "javascript:alert(1)"}, "logo_uri: "),
    ],
)
def test_a_wrong_client_is_told_by_number_id_and_member(
    tmp_path: Path, change: dict[str, Any], member: str
) -> None:
    """docs/settings.md: which client, which member, what to write instead; never its secret."""
    second = GOOD | {"client_id": "second"} | change
    (fault,) = _faults(tmp_path, PYLON_OIDC_CLIENTS=json.dumps([GOOD, second]))
    shown = f" ({second['client_id']})" if second["client_id"] else ""
    assert fault.startswith(f"PYLON_OIDC_CLIENTS: client 2{shown}, {member}")
    assert SECRET not in fault and "hush" not in fault and "alert" not in fault


def test_a_confidential_client_that_has_no_secret_is_a_fault(tmp_path: Path) -> None:
    """docs/settings.md: no secret means public; a secret method without one contradicts itself."""
    client = {
        "client_id": "x",
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "client_secret_basic",
    }
    (fault,) = _faults(tmp_path, PYLON_OIDC_CLIENTS=json.dumps([client]))
    assert "token_endpoint_auth_method" in fault


def test_an_id_in_both_is_warned_of(
    serve_provider: ServeProvider, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """docs/settings.md: the environment wins, with a warning at start-up that names the id."""
    op = serve_provider([])
    for client_id in ("c-basic", "c-own"):
        op.app.call("POST", "/api/oidc/clients", {"client_id": client_id, "redirect_uris": [CALLBACK]})
    monkeypatch.setattr("os.environ", _environ(op.house.settings.data_dir) | {"PYLON_LOG_FORMAT": "json"})
    get_app(op.clock)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "PYLON_OIDC_CLIENTS" in line]
    assert '"warning"' in line and "c-basic" in line and "environment" in line


def test_check_makes_no_file(tmp_path: Path) -> None:
    """docs/settings.md: `check` makes no file, with clients too."""
    inspect(_environ(tmp_path), now=0)
    assert list(tmp_path.iterdir()) == []


def test_settings_never_show_a_secret(tmp_path: Path) -> None:
    """docs/security.md: neither the settings' `repr` nor a client's holds the secret."""
    settings = read_settings(_environ(tmp_path)).settings
    assert SECRET not in repr(settings) + repr(settings.clients)
