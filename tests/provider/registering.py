"""A program that nobody knows, which registers itself at a provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tests.provider.driver import Provider, RelyingParty
from tests.support.gunicorn import Answer

CALLBACK: Final = "https://stranger.example.net/callback"
METADATA: Final[Mapping[str, Any]] = {"redirect_uris": [CALLBACK], "client_name": "A stranger"}


class Stranger:
    """One client that registered itself, with the answer that it got."""

    def __init__(self, op: Provider, told: dict[str, Any]) -> None:
        self.op, self.told = op, told

    @property
    def client_id(self) -> str:
        """Its id."""
        return str(self.told["client_id"])

    def rp(self, **options: Any) -> RelyingParty:
        """The relying party that it is."""
        usual = {
            "secret": self.told.get("client_secret"),
            "method": self.told["token_endpoint_auth_method"],
            "redirect_uri": self.told["redirect_uris"][0],
        }
        return self.op.rp(self.client_id, **usual | options)

    def manage(self, method: str, *, token: str | None = "", **options: Any) -> Answer:
        """Ask at its registration's own address, with its token; None for no token."""
        shown = self.told["registration_access_token"] if token == "" else token
        path = urlsplit(self.told["registration_client_uri"]).path
        return self.op.ask(method, path, token=shown, **options)

    def put(self, **members: Any) -> Answer:
        """Replace its metadata."""
        return self.manage("PUT", json={"client_id": self.client_id, **members})


def register(op: Provider, *, token: str | None = None, address: str | None = None, **members: Any) -> Answer:
    """Ask to be registered; None leaves a member of the usual ones out."""
    given = {name: value for name, value in {**METADATA, **members}.items() if value is not None}
    environ = {} if address is None else {"REMOTE_ADDR": address}
    return op.ask("POST", "/oidc/register", json=given, token=token, environ=environ)


def registered(op: Provider, **members: Any) -> Stranger:
    """A stranger that is registered."""
    answer = register(op, **members)
    assert answer.status == 201, answer
    return Stranger(op, answer.json())


def refusal(answer: Answer) -> tuple[int, str]:
    """The status and the error, with the form that every refusal has."""
    body = answer.json()
    assert set(body) == {"error", "error_description"}, answer
    assert all(" " <= char <= "~" and char not in '"\\' for char in body["error_description"])
    assert answer.headers.all("Access-Control-Allow-Origin") == ["*"]
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status, body["error"]
