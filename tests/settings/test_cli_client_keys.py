"""docs/cli.md: `pylon-oidc clients keys`, and what doctor's question gets afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import ECKey

from tests.outbound.attacking import Answering, Attacker, ok
from tests.settings.conftest import Run

KEYS = {"keys": [ECKey.generate_key("P-256").as_dict(private=False) | {"kid": "k1"}]}


class Client:
    """A client's server; its answer may change."""

    def __init__(self) -> None:
        self.answer = ok(json.dumps(KEYS).encode())
        self.server = Attacker(lambda wire: Answering(self.answer)(wire))
        self.uri = f"http://127.0.0.1:{self.server.port}/keys"

    def settings(self) -> dict[str, str]:
        """The settings of a service that knows it."""
        with_keys: dict[str, Any] = {
            "client_id": "mail",
            "redirect_uris": ["https://mail.example.com/cb"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": self.uri,
        }
        secret = {
            "client_id": "wiki",
            "client_secret": "b7Rk2mQx9Lw4Tz8Vn1Ys6Hd3Jf5Gc0Pa",
            "redirect_uris": ["https://w.example/cb"],
        }
        return {
            "PYLON_OIDC_CLIENTS": json.dumps([with_keys, secret]),
            "PYLON_OIDC_KEYS": "managed",
            "PYLON_JWT_AUDIENCE": "app",
            "PYLON_OUTBOUND_ALLOW": "127.0.0.1",
        }


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    with made.server:
        yield made


def test_the_keys_are_listed_and_a_failure_is_told_with_its_cause(run: Run, client: Client) -> None:
    """docs/cli.md: it asks now, each time; exit 1 and the cause where it fails, with the keys that count until then."""
    run.have_database()
    result = run("clients", "keys", "mail", **client.settings())
    assert (result.exit_code, result.stdout) == (0, "kid  verifies\nk1   ES256\n")
    client.answer = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    result = run("clients", "keys", "mail", "--json", **client.settings())
    told = json.loads(result.stdout)
    assert (result.exit_code, told["failure"]) == (1, "the answer has status 404")
    assert (told["client_id"], told["jwks_uri"]) == ("mail", client.uri)
    assert told["keys"] == [{"kid": "k1", "algs": ["ES256"]}]
    result = run("clients", "keys", "mail", **client.settings())
    assert "and count until" in result.stdout
    assert result.stderr == f"{client.uri} cannot be used: the answer has status 404.\n"
    assert client.server.met == 3
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_who_has_no_url_is_refused(run: Run, client: Client) -> None:
    """Nothing is asked."""
    run.have_database()
    for client_id, said in (
        ("wiki", "This client has no jwks_uri.\n"),
        ("nobody", "There is no such client.\n"),
    ):
        result = run("clients", "keys", client_id, **client.settings())
        assert (result.exit_code, result.stderr) == (1, said)
    assert client.server.met == 0
