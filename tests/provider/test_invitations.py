"""An invitation lets programs register themselves, within its bounds (docs/registration.md#with-an-invitation)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from service.handles import hash_handle
from service.records.invitations import Invitation
from service.records.scopes import STANDARD_SCOPES
from service.startup import open_store
from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider
from tests.provider.registering import CALLBACK, Stranger, refusal, register
from tests.support.cases import each_of

Invite = Callable[..., str]
OPENED = """
[audience."https://api.example.com/mcp"]
alg = "RS256"
grants = ["authorization_code"]
scopes = ["tools:call"]
strangers = true
"""


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    """A provider where an invitation is needed."""
    return serve_provider(PYLON_OIDC_REGISTRATION="token")


@pytest.fixture
def invite(op: Provider) -> Invite:
    """Make an invitation; its token."""

    def make(*, uses: int = 1, lives_s: int = 60, **metadata: Any) -> str:
        return invited(op, uses=uses, lives_s=lives_s, **metadata)

    return make


def invited(op: Provider, /, *, uses: int = 1, lives_s: int = 60, **metadata: Any) -> str:
    """The token of a new invitation."""
    now, token = int(op.clock()), token_hex(8)
    invitation = Invitation(f"id-{token}", hash_handle(token), uses, now + lives_s, now, metadata)
    with closing(open_store(op.house.settings)) as store:
        assert store.put(invitation.to_record(), now=now)
    return token


def test_it_registers_so_many_clients(op: Provider, invite: Invite) -> None:
    """RFC 7591 §3: each use is one client; then it is used up. What is refused uses nothing."""
    token = invite(uses=2)
    assert refusal(register(op, token=token, redirect_uris=[])) == (400, "invalid_redirect_uri")
    ids = {register(op, token=token).json()["client_id"] for _ in range(2)}
    assert len(ids) == 2
    assert refusal(register(op, token=token)) == (401, "invalid_token")


def test_it_ends(op: Provider, invite: Invite) -> None:
    """docs/cli.md: at its end it is unknown; what it has registered stays."""
    token = invite(uses=2, lives_s=60)
    stranger = Stranger(op, register(op, token=token).json())
    op.clock.advance(60)
    assert refusal(register(op, token=token)) == (401, "invalid_token")
    assert stranger.manage("GET").status == 200


BOUNDS: dict[str, Any] = {
    "redirect_uris": [CALLBACK, "https://stranger.example.net/2"],
    "scope": "openid email",
    "grant_types": ["authorization_code"],
    "token_endpoint_auth_method": "client_secret_post",
    "client_name": "Partner",
}


def test_it_completes_what_is_left_out(op: Provider, invite: Invite) -> None:
    """docs/registration.md: a client gets what it leaves out from there; PUT is completed in the same way."""
    answer = register(op, token=invite(**BOUNDS), redirect_uris=None, client_name=None)
    assert {name: answer.json()[name] for name in BOUNDS} == BOUNDS
    stranger = Stranger(op, answer.json())
    changed = stranger.put(scope="openid", contacts=["a@stranger.example"])
    assert changed.json()["scope"] == "openid" and changed.json()["client_name"] == "Partner"
    assert {name: stranger.put().json()[name] for name in BOUNDS} == BOUNDS


@each_of(
    "within",
    [
        {"redirect_uris": [CALLBACK]},
        {"scope": "email"},
        {"client_name": "Partner", "tos_uri": "https://stranger.example.net/tos"},
        {"grant_types": ["authorization_code"], "token_endpoint_auth_method": "client_secret_post"},
    ],
)
def test_a_client_may_have_less(op: Provider, invite: Invite, within: dict[str, Any]) -> None:
    """docs/registration.md: a part of a list or of the scopes, and members that the invitation does not name."""
    answer = register(op, token=invite(**BOUNDS), **{"redirect_uris": None, "client_name": None} | within)
    assert answer.status == 201 and {name: answer.json()[name] for name in within} == within


@each_of(
    "beyond",
    [
        {"redirect_uris": [CALLBACK, "https://elsewhere.example/"]},
        {"redirect_uris": CALLBACK},
        {"redirect_uris": [{}]},
        {"scope": "openid email profile"},
        {"scope": ["openid"]},
        {"grant_types": ["authorization_code", "refresh_token"]},
        {"token_endpoint_auth_method": "none"},
        {"client_name": "Another"},
        {"client_name": 7},
    ],
)
def test_a_client_never_has_more(op: Provider, invite: Invite, beyond: dict[str, Any]) -> None:
    """docs/registration.md: refused when it registers and at every later change, and no use is lost."""
    token = invite(**BOUNDS)
    answer = register(op, token=token, **{"redirect_uris": None, "client_name": None} | beyond)
    assert answer.status == 400 and "more than this client is allowed" in answer.json()["error_description"]
    stranger = Stranger(op, register(op, token=token, redirect_uris=None, client_name=None).json())
    answer = stranger.put(**beyond)
    assert answer.status == 400 and "more than this client is allowed" in answer.json()["error_description"]


def test_its_scope_stays_what_it_was(serve_provider: ServeProvider, tmp_path: Path) -> None:
    """docs/registration.md: what the operator opens to strangers later is not for a client whose invitation names its scope."""
    every = " ".join(STANDARD_SCOPES.words)

    def op_with(**environ: Any) -> Provider:
        return serve_provider(
            PYLON_OIDC_REGISTRATION="token",
            PYLON_OIDC_REGISTRATION_SCOPES=every,
            **environ,
        )

    op = op_with()
    bound, free = (register(op, token=invited(op, **bounds)) for bounds in ({"scope": every}, {}))
    (tmp_path / "policies.toml").write_text(OPENED)
    later = op_with(
        PYLON_POLICIES=str(tmp_path / "policies.toml"), PYLON_DATA_DIR=str(op.house.settings.data_dir)
    )
    known = [Stranger(later, answer.json()).manage("GET").json()["scope"] for answer in (bound, free)]
    assert known == [every, f"{every} tools:call"]
    assert register(later, token=invited(later, scope=every), scope=every).json()["scope"] == every


def test_the_operator_is_not_bound(op: Provider, invite: Invite) -> None:
    """docs/registration.md: the bounds are for the client; what they are is shown to nobody in its metadata."""
    stranger = Stranger(op, register(op, token=invite(**BOUNDS), redirect_uris=None, client_name=None).json())
    path = f"/api/oidc/clients/{stranger.client_id}"
    known = op.app.call("GET", path).json()
    assert not {"registration", "bounds"} & set(known)
    assert op.app.call("PUT", path, known | {"client_name": "By the operator"}).status == 200
    assert stranger.manage("GET").json()["client_name"] == "By the operator"
    assert stranger.put().json()["client_name"] == "Partner"


def test_where_everybody_may_register_it_counts_too(serve_provider: ServeProvider) -> None:
    """docs/registration.md: an invitation that is sent is used, and bounds what comes of it."""
    op = serve_provider(PYLON_OIDC_REGISTRATION="open")
    now = int(op.clock())
    invitation = Invitation("id", hash_handle("token"), 1, now + 60, now, {"client_name": "Partner"})
    with closing(open_store(op.house.settings)) as store:
        assert store.put(invitation.to_record(), now=now)
    assert register(op, token="token", client_name=None).json()["client_name"] == "Partner"
    assert register(op, token="token").status == 401
    assert register(op).status == 201
