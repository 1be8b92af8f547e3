"""What `pylon-oidc check` says of a configuration that starts and does not serve (docs/cli.md)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.settings.conftest import Run
from tests.support.gunicorn import ADMIN, SECRET, TRUSTED, rsa_pem

ISSUER = {"PYLON_OIDC_ISSUER": "https://id.example.com"}


def test_it_says_that_nobody_can_begin_a_session(run: Run) -> None:
    """Neither the admin token nor the trusted secret is set; either one is enough."""
    warning = (
        "note: sessions: PYLON_ADMIN_TOKEN and PYLON_TRUSTED_SECRET are unset: nobody can start a session"
    )
    assert warning in run("check", **ISSUER, PYLON_JWT_SECRET=SECRET).stdout
    for name, value in (("PYLON_ADMIN_TOKEN", ADMIN), ("PYLON_TRUSTED_SECRET", TRUSTED)):
        ran = run("check", **ISSUER, PYLON_JWT_SECRET=SECRET, **{name: value})
        assert "nobody can start a session" not in ran.stdout


def test_it_says_that_clients_of_the_database_have_no_sign_in_page(run: Run) -> None:
    """With such a client and without PYLON_LOGIN_URL every sign-in is 501."""
    settings = {**ISSUER, "PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_JWT_SECRET": SECRET}
    assert run("migrate", **settings).exit_code == 0
    assert "PYLON_LOGIN_URL" not in run("check", **settings).stdout
    assert run("clients", "add", "--redirect-uri", "https://rp.example/cb", **settings).exit_code == 0
    assert (
        "warning: PYLON_LOGIN_URL is unset, and the database has clients" in run("check", **settings).stdout
    )
    page = {"PYLON_LOGIN_URL": "https://app.example.com/sign-in"}
    assert "PYLON_LOGIN_URL is unset" not in run("check", **settings, **page).stdout


def test_a_key_that_the_first_start_makes_is_no_fault_of_discovery(run: Run, tmp_path: Path) -> None:
    """It will be an RSA key: nothing is missing in what discovery will say."""
    settings = {**ISSUER, "PYLON_JWT_ALG": "RS256", "PYLON_OIDC_KEY_PATH": str(tmp_path / "key.pem")}
    told = json.loads(run("check", "--json", **settings).stdout)
    assert not [note for note in told["notes"] if note.startswith("discovery:")]
    assert any("the first start creates it" in note for note in told["notes"])
    assert not (tmp_path / "key.pem").exists()


def test_a_bad_encryption_key_is_one_fault(run: Run) -> None:
    """It is not also said to be unset."""
    ran = run("check", **ISSUER, PYLON_OIDC_KEYS="managed", PYLON_KEY_ENCRYPTION_KEY="abc")
    assert ran.exit_code == 2
    assert ran.stderr.count("PYLON_KEY_ENCRYPTION_KEY:") == 1
    assert "unset" not in ran.stderr
