"""What most requests need is loaded before the workers are forked, so that they share its memory (decision 0024)."""

from __future__ import annotations

import json
import re
import signal
from urllib.parse import urlencode

from tests.provider.browser import query_of
from tests.provider.driver import challenge_of
from tests.support.gunicorn import ADMIN, Gunicorn, rsa_pem

CALLBACK = "https://rp.example.org/cb"
CLIENT = {"client_id": "c", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
SETTINGS = {
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_JWT_ALG": "RS256",
    "PYLON_JWT_AUDIENCE": "api",
    "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
    "PYLON_OIDC_CLIENTS": json.dumps([CLIENT | {"first_party": True}]),
    "PYLON_OIDC_ISSUER": "https://id.example.com",
    "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
}


def _use(server: Gunicorn) -> None:
    """A user signs in to the app and to a client, and gets tokens; a page."""
    token, verifier = server.sign_in("ada"), "v" * 43
    assert server.mint(token).status == 200
    asked = {
        "client_id": "c",
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid offline_access",
    }
    asked |= {"code_challenge": challenge_of(verifier), "code_challenge_method": "S256"}
    path = f"/oidc/authorize?{urlencode(asked)}"
    code = query_of(
        server.call("GET", path, headers={"Cookie": f"pylon_session={token}"}).headers["Location"]
    )
    form = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": verifier} | code
    for _ in range(2):
        answer = server.call(
            "POST",
            "/oidc/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form | {"client_id": "c"}),
        )
        assert answer.status == 200, answer
        form = {"grant_type": "refresh_token", "refresh_token": answer.json()["refresh_token"]}
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert server.call("GET", "/oidc/userinfo", headers=bearer).status == 200
    assert server.call("GET", "/oidc/authorize?client_id=nobody").status == 400
    assert server.call("GET", "/readyz").status == 200


def test_a_worker_loads_next_to_nothing() -> None:
    """No module after the fork, except a codec for the text of a page."""
    with Gunicorn(
        server="gunicorn", config="tests/flows/noting_what_is_loaded.py", WEB_CONCURRENCY="1", **SETTINGS
    ) as server:
        _use(server)
        server.stop(signal.SIGTERM)
        (loaded,) = re.findall(r"^loaded: ?(.*)$", server.output(), re.M)
    assert set(loaded.split()) <= {"encodings.unicode_escape"}
