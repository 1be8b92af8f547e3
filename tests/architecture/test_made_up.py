"""What "How to add" of docs/architecture.md promises: a grant type is one new file, and one row of a table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.gunicorn import PROJECT, SECRET, clean_environment, rsa_pem

MADE_UP = '''
"""`urn:example:made-up`: a token for whoever asks."""

from __future__ import annotations

from typing import Any, Final

from service.protocol.grants.base import GrantType, TokenRequest
from service.protocol.grants.issuing import Issuing


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    return {"access_token": f"for {request.client.client_id}", "token_type": "made-up"}


TYPE: Final = GrantType("urn:example:made-up", given_by_default=False, needs_id_token_key=False, exchange=exchange)
'''
ASK = """
import json, time
from falcon.testing import TestClient
from service.app import create_app
from service.sessions import LocalSessions
from service.startup import prepare

prepared = prepare(clock=time.time)
sessions = LocalSessions(prepared.store, lifetime_s=3600)
client = TestClient(create_app(prepared.settings, prepared.store, prepared.keyring, sessions))
discovery = client.simulate_get("/.well-known/openid-configuration").json
assert "urn:example:made-up" in discovery["grant_types_supported"], discovery
answers = []
for who in ("may", "may-not"):
    form = f"grant_type=urn:example:made-up&client_id={who}&client_secret=SECRET"
    answers.append(client.simulate_post("/oidc/token", body=form, headers={"Content-Type": "application/x-www-form-urlencoded"}).json)
print(json.dumps(answers))
"""
CLIENTS = """[
    {"client_id": "may", "client_secret": "SECRET", "redirect_uris": [], "grant_types": ["urn:example:made-up"]},
    {"client_id": "may-not", "client_secret": "SECRET", "redirect_uris": ["https://a.example/cb"]}
]"""


def test_a_made_up_grant_type_is_a_file_and_a_row(tmp_path: Path) -> None:
    """RFC 6749 §4.5: discovery, the metadata of clients and the token endpoint know it; nobody has it who did not ask."""
    shutil.copytree(PROJECT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    grants = tmp_path / "service/protocol/grants"
    (grants / "made_up.py").write_text(MADE_UP)
    table = (grants / "__init__.py").read_text()
    row = "(authorization_code.TYPE, refresh_token.TYPE)"
    assert table.count(row) == 1
    table = table.replace(row, "(authorization_code.TYPE, refresh_token.TYPE, made_up.TYPE)")
    table = table.replace(
        "import authorization_code, refresh_token", "import authorization_code, made_up, refresh_token"
    )
    (grants / "__init__.py").write_text(table)
    done = subprocess.run(
        [sys.executable, "-c", ASK.replace("SECRET", SECRET)],
        cwd=tmp_path,
        env=clean_environment(
            PYLON_DATA_DIR=str(tmp_path / "data"),
            PYLON_OIDC_ISSUER="https://id.example.com",
            PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
            PYLON_LOGIN_URL="https://app.example.com/sign-in",
            PYLON_OIDC_CLIENTS=CLIENTS.replace("SECRET", SECRET),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '[{"access_token": "for may", "token_type": "made-up"}' in done.stdout, done.stdout
    assert '"error": "unauthorized_client"' in done.stdout, done.stdout
