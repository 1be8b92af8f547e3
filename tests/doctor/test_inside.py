"""What doctor learns on the inside about clients, from a real service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from tests.doctor.asking import ask_doctor
from tests.support.gunicorn import ADMIN, Gunicorn, hold_port, rsa_pem

_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def test_a_client_whose_keys_cannot_be_fetched_is_found(tmp_path: Path) -> None:
    """docs/doctor/client-keys-unreachable.md: after it was refused for that; which client, why, and the line that helps."""
    (tmp_path / "token").write_text(ADMIN)
    with hold_port() as holder, hold_port() as nobody:
        port, uri = holder.getsockname()[1], f"http://127.0.0.1:{nobody.getsockname()[1]}/keys"
        issuer = f"http://localhost:{port}"
        client: dict[str, Any] = {
            "client_id": "mail",
            "redirect_uris": ["https://mail.example.com/cb"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": uri,
        }
        with Gunicorn(
            port=port,
            PYLON_DEV_MODE="1",
            PYLON_OIDC_ISSUER=issuer,
            PYLON_ADMIN_TOKEN=ADMIN,
            PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
            PYLON_OIDC_CLIENTS=json.dumps([client]),
            PYLON_OUTBOUND_ALLOW="127.0.0.1",
        ) as service:
            inside = ["--admin-url", issuer, "--admin-token-file", str(tmp_path / "token")]
            assert "client-keys-unreachable" not in {
                each["id"] for each in ask_doctor(issuer, inside).findings
            }
            claims = {"iss": "mail", "sub": "mail", "aud": issuer, "jti": "1", "exp": int(time.time()) + 60}
            assertion = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256")
            body = {"client_assertion_type": _TYPE, "client_assertion": assertion, "token": "x"}
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = service.call("POST", "/oidc/introspect", headers=form, body=urlencode(body).encode())
            assert answer.status == 401
            told = next(
                each
                for each in ask_doctor(issuer, inside).findings
                if each["id"] == "client-keys-unreachable"
            )
    assert told["seen"] == f"mail: no_connection, at {uri}"
    assert told["fix"]["line"] == "pylon-oidc clients update mail --set jwks_uri=https://…"
