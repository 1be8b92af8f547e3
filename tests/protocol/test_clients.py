"""Clients: the rules of redirect URIs (RFC 8252, RFC 9700), methods and secrets."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.handles import hash_handle
from service.protocol.clients import InvalidClientMetadata, parse_client
from service.records.claims import PROTECTED_CLAIMS
from service.records.clients import Client, ClientSecret
from tests.support.cases import each_of

NOW = 1_800_000_000
SECRET = "k7Jq2mZx9Lw4Rt6Yb1Nc8Vd3Fg5Hs0Pa-tests"


def _client(**metadata: Any) -> Client:
    return parse_client(
        {"client_id": "c", "redirect_uris": ["https://rp.example.org/cb"]} | metadata, source="database"
    )


@each_of(
    "uri",
    [
        "https://rp.example.org/cb",
        "https://rp.example.org:8443/cb?x=1&y=2",
        "https://rp.example.org",
        "https://xn--bcher-kva.example/cb",
        "https://[2001:db8::1]/cb",
        "http://localhost/cb",
        "http://localhost:8080/cb",
        "http://127.0.0.1/cb",
        "http://127.0.0.1:49152/cb",
        "http://[::1]/cb",
        "com.example.app:/oauth2redirect",
        "org.example.app.x:/a/b?c=d",
        "com.example.app://callback",
        "com.example.app://host/cb?x=1",
        "app.immich:///oauth-callback",
    ],
)
def test_a_redirect_uri_that_may_be_registered(uri: str) -> None:
    """RFC 8252 §7.1, §7.3; RFC 9700 §2.6: https, http for this machine, a reversed domain name as scheme."""
    assert _client(redirect_uris=[uri]).redirect_uris == (uri,)
    assert _client(redirect_uris=[uri]).knows_redirect_uri(uri)


@each_of(
    "uri",
    [
        "http://rp.example.org/cb",
        "http://127.0.0.2/cb",
        "http://0.0.0.0/cb",
        "http://localhost.evil.example/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost@evil.example/cb",
        "https://rp.example.org/cb#",
        "https://rp.example.org/cb#f",
        "https://user@rp.example.org/cb",
        "https://u:p@rp.example.org/cb",
        "https://*.example.org/cb",
        "https://rp.example.org:99999/cb",
        "https://rp.example.org:x/cb",
        "https:///cb",
        "https://",
        "https:rp.example.org",
        "//rp.example.org/cb",
        "/cb",
        "cb",
        "",
        " https://rp.example.org/cb",
        "https://rp.example.org/c b",
        "https://rp.example.org/cb\n",
        "https://rp.example.org\\cb",
        "https://rp.example.org/é",
        "https://rp.example.org/<x>",
        "javascript:alert(1)",
        "javascript://x.y/%0aalert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://rp.example.org/",
        "myapp:/cb",
        "myapp://cb",
        "urn:ietf:wg:oauth:2.0:oob",
        "com.example.app:x",
        "com.example.app://user@host/cb",
        "com.example.app://h,x/cb",
        "https://rp.example.org;x/cb",
        "https://rp.example.org,evil.example/cb",
        "https://rp.example.org'/cb",
        "https://rp.example.org/" + "x" * 2048,
    ],
)
def test_one_that_may_not(uri: str) -> None:
    """RFC 8252 §8.4; RFC 9700 §2.1, §4.1: no plain http elsewhere, fragment, user info, wildcard, script or bare scheme."""
    for member in ("redirect_uris", "post_logout_redirect_uris"):
        with pytest.raises(InvalidClientMetadata) as refusal:
            _client(**{member: [uri]})
        assert refusal.value.member == member
        assert len(uri) < 10 or uri not in str(refusal.value)


@each_of(
    ("registered", "shown", "known"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", True),
        ("http://127.0.0.1:8000/cb", "http://127.0.0.1:51004/cb", True),
        ("http://127.0.0.1:8000/cb", "http://127.0.0.1/cb", True),
        ("http://[::1]/cb", "http://[::1]:51004/cb", True),
        ("http://127.0.0.1/cb?x=1", "http://127.0.0.1:5/cb?x=1", True),
        ("http://127.0.0.1", "http://127.0.0.1:5", True),
        ("http://localhost/cb", "http://localhost:51004/cb", False),
        ("http://127.0.0.1/cb", "http://localhost:51004/cb", False),
        ("http://localhost/cb", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1/cb", "http://[::1]/cb", False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:5/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb/", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/CB", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb?x", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb#f", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5@evil.example/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:x/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:123456/cb", False),
        ("http://127.0.0.1/cb", "HTTP://127.0.0.1:5/cb", False),
        ("https://rp.example.org/cb", "https://rp.example.org:8443/cb", False),
        ("com.example.app:/cb", "com.example.app:/cb/", False),
        ("com.example.app:/cb", "com.example.app://cb", False),
        ("com.example.app://cb", "com.example.app://cb", True),
        ("com.example.app://cb", "COM.example.app://cb", False),
    ],
)
def test_only_a_loopback_addresss_port_is_free(registered: str, shown: str, known: bool) -> None:
    """RFC 8252 §7.3, §8.3: any port for the loopback IP literals; all else is the exact string (RFC 9700 §2.1)."""
    confidential = _client(redirect_uris=[registered], client_secret="0123456789abcdef" * 4)
    assert not confidential.is_public and confidential.knows_redirect_uri(shown) is known
    if "localhost" not in shown:
        assert _client(redirect_uris=[registered]).knows_redirect_uri(shown) is known


@each_of(
    ("registered", "shown", "known"),
    [
        ("http://localhost/cb", "http://localhost:51004/cb", True),
        ("http://localhost:3000/cb?x=1", "http://localhost:1/cb?x=1", True),
        ("http://localhost:3000", "http://localhost", True),
        ("http://localhost/cb", "http://localhost:5/cb/", False),
        ("http://localhost/cb", "http://localhost:5/cb?x", False),
        ("http://localhost/cb", "http://localhost:5/CB", False),
        ("http://localhost/cb", "http://LOCALHOST:5/cb", False),
        ("http://localhost/cb", "http://localhost.:5/cb", False),
        ("http://localhost/cb", "http://localhost.example.com:5/cb", False),
        ("http://localhost/cb", "http://localhost:5@evil.example/cb", False),
        ("http://localhost/cb", "http://127.0.0.1:5/cb", False),
        ("http://127.0.0.1/cb", "http://localhost:5/cb", False),
        ("https://localhost/cb", "https://localhost:5/cb", False),
    ],
)
def test_the_port_of_localhost_is_free_for_public_clients(registered: str, shown: str, known: bool) -> None:
    """docs/settings.md: only for them, and only the port: a confidential client's stays the exact string (RFC 8252 §8.3)."""
    public = _client(redirect_uris=[registered])
    assert public.is_public and public.knows_redirect_uri(shown) is known
    confidential = _client(redirect_uris=[registered], client_secret="0123456789abcdef" * 4)
    assert not confidential.is_public and not confidential.knows_redirect_uri(shown)


@each_of("uri", ["audiobookshelf://oauth", "oc://ios.example.eu", "myapp:/cb", "x-y+z:/a"])
def test_a_scheme_without_a_dot_needs_the_operators_word(uri: str) -> None:
    """RFC 8252 §7.1: nobody owns such a name; the refusal says what allows it."""
    for member in ("redirect_uris", "post_logout_redirect_uris"):
        with pytest.raises(InvalidClientMetadata, match="allow_any_scheme"):
            _client(**{member: [uri]})
        with pytest.raises(InvalidClientMetadata, match="allow_any_scheme"):
            _client(**{member: [uri], "allow_any_scheme": False})
        assert getattr(_client(**{member: [uri], "allow_any_scheme": True}), member) == (uri,)
    assert _client(redirect_uris=[uri], allow_any_scheme=True).knows_redirect_uri(uri)


@each_of(
    "uri",
    ["javascript:/alert(1)", "JavaScript://x/%0aalert(1)", "data:/text/html,x", "vbscript:/x", "file:///etc/passwd",
     "blob:/x", "ftp://rp.example.org/", "ws://rp.example.org/", "about:/blank", "view-source:/x", "intent://x/#Intent",
     "http://rp.example.org/cb", "http:/cb", "https:/cb", "mailto:/x", "myapp:cb", "//rp.example.org/cb", "/cb",
     "myapp://u@h/cb", "myapp:/cb#f"],
)  # fmt: skip
def test_no_word_allows_what_a_browser_answers_itself(uri: str) -> None:
    """RFC 8252 §8.4; RFC 9700 §4.1: a script, a file or plain http is not an app, for any client."""
    with pytest.raises(InvalidClientMetadata):
        _client(redirect_uris=[uri], allow_any_scheme=True)


@given(st.text(max_size=40), st.integers(0, 25))
def test_one_more_or_one_less_is_another(extra: str, at: int) -> None:
    """RFC 9700 §2.1: a registered URI with anything put in or left out is not registered."""
    uri = "https://rp.example.org/cb"
    client = _client(redirect_uris=[uri])
    assert client.knows_redirect_uri(uri[:at] + extra + uri[at:]) is (extra == "")
    assert not client.knows_redirect_uri(uri[:at] + uri[at + 1 :]) or at >= len(uri)


@each_of(
    ("metadata", "basic", "post", "none"),
    [
        ({"client_secret": SECRET}, True, True, False),
        ({"client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"}, True, False, False),
        ({"client_secret": SECRET, "token_endpoint_auth_method": "client_secret_post"}, False, True, False),
        ({}, False, False, True),
        ({"token_endpoint_auth_method": "none"}, False, False, True),
    ],
)
def test_which_methods_a_client_may_use(
    metadata: dict[str, Any], basic: bool, post: bool, none: bool
) -> None:
    """docs/settings.md: both secret methods for a confidential client unless it names one; no secret = public."""
    client = _client(**metadata)
    assert client.is_public is none
    methods = ("client_secret_basic", "client_secret_post", "none")
    assert [client.accepts_method(method) for method in methods] == [basic, post, none]
    assert not client.accepts_method("") and not client.accepts_method("client_secret")


def test_a_secret_is_good_until_its_end() -> None:
    """docs/settings.md: after a rotation the old one works for an hour; the new one permanently."""
    old, new = ClientSecret(hash_handle("old" * 12), NOW), ClientSecret(hash_handle("new" * 12))
    client = Client("c", ("https://rp.example.org/cb",), "database", secrets=(new, old))
    assert client.has_secret("old" * 12, now=NOW - 1) and not client.has_secret("old" * 12, now=NOW)
    assert client.has_secret("new" * 12, now=NOW * 2)


@given(st.text(max_size=60))
def test_no_other_secret_is_good(shown: str) -> None:
    """docs/security.md: only the very secret; a public client has none, so none is good."""
    assert _client(client_secret=SECRET).has_secret(shown, now=NOW) is (shown == SECRET)
    assert not _client().has_secret(shown, now=NOW)


def test_no_secret_is_kept_or_shown() -> None:
    """docs/security.md: neither the value, nor its hash in the metadata."""
    client = _client(client_secret=SECRET)
    assert SECRET not in repr(client)
    shown = client.public_metadata()
    assert not {"secrets", "client_secret"} & set(shown) and hash_handle(SECRET) not in str(shown)


@each_of("member", ["client_id", "redirect_uris"])
def test_what_every_client_has(member: str) -> None:
    """docs/settings.md: at least `client_id` and `redirect_uris`."""
    metadata = {"client_id": "c", "redirect_uris": ["https://rp.example.org/cb"]}
    del metadata[member]
    with pytest.raises(InvalidClientMetadata) as refusal:
        parse_client(metadata, source="environment")
    assert refusal.value.member == member


@each_of(
    ("slip", "meant"),
    [
        ("redirect_url", "redirect_uris"),
        ("clientid", "client_id"),
        ("secret", "client_secret"),
        ("post_logout_uris", "post_logout_redirect_uris"),
        ("requirepkce", "require_pkce"),
        ("resources", "resource_ids"),
        ("grant_type", "grant_types"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(slip: str, meant: str) -> None:
    """docs/settings.md: unknown metadata is refused with a did-you-mean."""
    with pytest.raises(InvalidClientMetadata, match=f"{slip}: is not known; did you mean {meant}") as refusal:
        _client(**{slip: "x"})
    assert refusal.value.member == slip


@each_of("name", sorted(PROTECTED_CLAIMS))
def test_a_claim_of_the_protocol_is_neither_renamed_nor_a_new_name(name: str) -> None:
    """RFC 8725 §3.11: what decides what a token is has one source."""
    for names in ({name: "other"}, {"roles": name}):
        with pytest.raises(InvalidClientMetadata) as refusal:
            _client(claim_names=names)
        assert refusal.value.member == "claim_names"


@each_of(
    "names",
    [{"email": "phone_number_verified"}, {"roles": "email_verified"}, {"roles": "x", "email": "x"}, {"roles": "email"},
     {"nickname": "name"}, {"roles": ""}, {"roles": "a b"}, {"roles": "é"}, {"roles": "x" * 65}, {"a b": "x"},
     {"tenant_id": "groups"}],
)  # fmt: skip
def test_two_claims_never_share_a_name(names: dict[str, str]) -> None:
    """One name has one source; only the app says whether something was verified."""
    with pytest.raises(InvalidClientMetadata) as refusal:
        _client(claim_names=names)
    assert refusal.value.member == "claim_names"


@each_of(
    "metadata",
    [
        {"claim_names": {"roles": "groups"}},
        {"claim_names": {"groups": "roles"}},
        {"claim_names": {"roles": "https://app.example.com/roles"}},
        {"claim_names": {"email": "name", "name": "email"}},
        {"claim_names": {"email_verified": "mail_ok"}},
        {"claim_names": {"roles": "email"}, "scope": "openid roles"},
        {"claim_names": {"department": "unit"}},
    ],
)
def test_names_that_may_be_given(metadata: dict[str, Any]) -> None:
    """Roles and groups are the same, so they may meet; so may what the client's scopes never give at once."""
    assert _client(**metadata).claim_names == metadata["claim_names"]


@each_of(
    ("metadata", "require_pkce", "logout_by_hint"),
    [
        ({}, True, False),
        ({"client_secret": SECRET}, None, True),
        ({"client_secret": SECRET, "require_pkce": False, "logout_by_hint": False}, False, False),
        ({"logout_by_hint": True}, True, True),
    ],
)
def test_defaults_that_hang_on_the_secret(
    metadata: dict[str, Any], require_pkce: bool | None, logout_by_hint: bool
) -> None:
    """RFC 9700 §2.1.1: a public client always uses PKCE; only who can keep a secret may end a session from behind."""
    client = _client(**metadata)
    assert (client.require_pkce, client.logout_by_hint) == (require_pkce, logout_by_hint)


def test_a_default_scope_is_one_that_it_may_have() -> None:
    """What the client's scope does not hold would never be granted."""
    with pytest.raises(InvalidClientMetadata, match="default_scopes: groups is not among its scope"):
        _client(scope="openid", default_scopes=["groups"])


@each_of(
    ("grant_types", "response_types", "fits"),
    [
        (["authorization_code"], ["code"], True),
        (["authorization_code"], [], False),
        (["urn:ietf:params:oauth:grant-type:device_code"], [], True),
        (["urn:ietf:params:oauth:grant-type:device_code"], ["code"], True),
        (["refresh_token", "authorization_code"], [], False),
    ],
)
def test_a_response_type_is_for_the_code_flow(
    grant_types: list[str], response_types: list[str], fits: bool
) -> None:
    """RFC 7591 §2.1: a client that uses no authorization endpoint may say so by an empty list."""
    metadata = {"client_id": "c", "redirect_uris": ["https://rp.example.org/cb"], "grant_types": grant_types}
    with contextlib.nullcontext() if fits else pytest.raises(InvalidClientMetadata, match="response_types"):
        parse_client(metadata | {"response_types": response_types}, source="database")
