"""What a client may have that the operator did not register (docs/settings.md#strangers), as a pure function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.policies.deciding import may_ask
from service.policies.values import DEVICE_GRANT, Policy
from service.protocol.clients import InvalidClientMetadata, parse_client
from service.protocol.strangers import OWN_MEMBERS, parse_stranger, told_to_itself
from service.records.clients import Client, ClientSecret, new_record, of_record
from service.records.scopes import STANDARD_SCOPES
from service.storage.interface import NEVER

CALLBACK = "https://rp.example.org/callback"
SCOPES = replace(
    STANDARD_SCOPES, of_apis=("tools:call", "hr:read"), of_strangers=("openid", "email", "tools:call")
)


def _parsed(*, devices: bool = False, **members: Any) -> Client:
    given = {"redirect_uris": [CALLBACK], **members}
    is_secret = members.get("token_endpoint_auth_method", "client_secret_basic").startswith("client_secret")
    return parse_stranger(
        given,
        client_id="r_1",
        source="registration",
        scopes=SCOPES,
        devices=devices,
        secrets=(ClientSecret("hash"),) if is_secret else (),
    )


def test_members_of_the_operator_are_ignored() -> None:
    """They have the value that a stranger has, whatever it sends, well-formed or not, and are not returned."""
    sent: dict[str, Any] = {
        "first_party": True,
        "resource_ids": ["https://api.example.com"],
        "claim_names": {"roles": "groups"},
        "id_token_claims": "requested",
        "allow_any_scheme": True,
        "require_pkce": False,
        "assertion_audience": "token_endpoint",
        "default_scopes": ["email"],
        "logout_by_hint": True,
        "profile": "fapi2",
    }
    assert set(sent) == set(OWN_MEMBERS)
    plain = _parsed()
    assert _parsed(**sent) == plain
    assert _parsed(**dict.fromkeys(sent, 7)) == plain
    assert not (plain.first_party or plain.logout_by_hint or plain.resource_ids or plain.default_scopes)
    assert plain.require_pkce is True and plain.assertion_audience is None
    assert not set(OWN_MEMBERS) & set(told_to_itself(plain))
    with pytest.raises(InvalidClientMetadata, match="redirect_uris"):
        _parsed(allow_any_scheme=True, redirect_uris=["myapp:/callback"])


def test_unknown_and_null_members_are_ignored() -> None:
    """RFC 7591 §2: unknown members are ignored. `source` and the like are not the client's to decide."""
    sent = {
        "software_id": "x",
        "client_name#de": "Q",
        "source": "database",
        "client_secret": "s",
        "client_id": "evil",
    }
    sent |= {"version": 1, "registration": {}, "client_name": None, "scope": ""}
    assert _parsed(**sent) == _parsed()
    assert "source" not in told_to_itself(_parsed())


@pytest.mark.parametrize(
    ("asked", "devices", "given"),
    [
        (None, False, ("authorization_code", "refresh_token")),
        (["authorization_code"], False, ("authorization_code",)),
        (["authorization_code", DEVICE_GRANT], False, ("authorization_code",)),
        ([DEVICE_GRANT], False, None),
        (["authorization_code", "client_credentials"], True, None),
        (["urn:ietf:params:oauth:grant-type:token-exchange"], False, None),
        (["password"], False, None),
        ([{}], False, None),
        ([], False, None),
        ("authorization_code", False, None),
    ],
)
def test_grant_types(asked: Any, devices: bool, given: tuple[str, ...] | None) -> None:
    """The code flow and refreshing. The device grant is left out where it is closed, all others are refused."""
    if given is None:
        with pytest.raises(InvalidClientMetadata) as refused:
            _parsed(devices=devices, grant_types=asked)
        assert refused.value.member == "grant_types"
        return
    members = {} if asked is None else {"grant_types": asked}
    assert _parsed(devices=devices, **members).grant_types == given


def test_scope() -> None:
    """All open ones if it says nothing, some of these if it does; a closed one is refused, and none of those is named."""
    assert _parsed().scope == SCOPES.of_strangers
    assert _parsed(scope="email tools:call").scope == ("email", "tools:call")
    for closed in ("openid roles", "hr:read", "nothing"):
        with pytest.raises(InvalidClientMetadata, match="write some of openid email tools:call") as refused:
            _parsed(scope=closed)
        assert "hr:read" not in refused.value.reason


def test_every_scope_of_discovery_is_all_that_it_may_have() -> None:
    """RFC 7591 §3.2.1: an agent whose server names no scopes asks for all of them; a word more, or one less, counts."""
    listed = dict.fromkeys([*SCOPES.words, *SCOPES.of_strangers])
    assert {"roles", "tools:call"} <= set(listed)
    assert _parsed(scope=" ".join(listed)).scope == SCOPES.of_strangers
    for counted in (
        [*listed, "hr:read"],
        [*listed, "nothing"],
        [word for word in listed if word != "openid"],
    ):
        with pytest.raises(InvalidClientMetadata, match="scope: holds one"):
            _parsed(scope=" ".join(counted))


def test_the_operator_closes_a_scope() -> None:
    """A stored stranger has the scopes that are open now: of those that it named, or all."""
    closed = replace(SCOPES, of_strangers=("openid", "tools:call"))
    for scope, given in ((None, SCOPES.of_strangers), ("openid email", ("openid", "email"))):
        record = new_record(_parsed(**{} if scope is None else {"scope": scope}), address="192.0.2.1")
        assert of_record(record, SCOPES).scope == given
        assert of_record(record, closed).scope == tuple(word for word in given if word != "email")


def test_how_it_authenticates() -> None:
    """`client_secret_basic` unless it says another (RFC 7591 §2); a document has no secret."""
    assert _parsed().token_endpoint_auth_method == "client_secret_basic"
    assert _parsed(token_endpoint_auth_method="none").is_public
    with pytest.raises(InvalidClientMetadata, match="token_endpoint_auth_method"):
        _parsed(token_endpoint_auth_method="client_secret_jwt")
    for method in ("client_secret_basic", "client_secret_post"):
        with pytest.raises(InvalidClientMetadata, match="token_endpoint_auth_method"):
            parse_stranger(
                {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": method},
                client_id="https://app.example/client.json",
                source="document",
                scopes=SCOPES,
                devices=False,
            )


def test_keys_that_it_does_not_authenticate_with() -> None:
    """RFC 7591 §2: a client may have keys for something else. One of the two members, well-formed, and never used."""
    kept = _parsed(jwks_uri="https://rp.example.org/jwks")
    assert kept.jwks_uri == "https://rp.example.org/jwks" and not kept.has_keys
    for wrong in (
        {"jwks": {}, "jwks_uri": "https://a.example/"},
        {"jwks": {"keys": 7}},
        {"jwks_uri": "jwks"},
    ):
        with pytest.raises(InvalidClientMetadata, match="jwks"):
            _parsed(**wrong)


def test_only_audiences_that_let_strangers_in() -> None:
    """A table that names no clients is for those that the operator registered; one that names it is not enough."""
    operators = parse_client(
        {"client_id": "wiki", "redirect_uris": [CALLBACK]}, source="database", scopes=SCOPES
    )
    api = Policy("https://api.example.com", "RS256", 60)
    for clients in (None, ("r_1", "wiki")):
        closed = replace(api, clients=clients)
        assert may_ask(closed, operators) and not may_ask(closed, _parsed())
        assert may_ask(replace(closed, strangers=True), _parsed())


def test_a_new_stranger_has_a_row_that_ends() -> None:
    """And what is read of that row says so. An operator's client never ends."""
    stranger = replace(_parsed(), row_ends_at=1000)
    record = new_record(stranger, address="192.0.2.1")
    assert (record.expires_at, record.subject) == (1000, "192.0.2.1")
    assert of_record(record, SCOPES) == stranger and of_record(record, SCOPES).row_ends_at == 1000
    operators = parse_client({"client_id": "r_1", "redirect_uris": [CALLBACK]}, source="database")
    assert new_record(operators).expires_at == NEVER
    assert new_record(operators).id_hash != record.id_hash  # a version that knows no strangers finds none
