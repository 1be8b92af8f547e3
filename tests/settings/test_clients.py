"""docs/settings.md, `PYLON_OIDC_CLIENTS`: the members of a client, and that no fault repeats a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.handles import hash_handle
from service.records.clients import Client
from tests.settings.reading import STRONG, named, read
from tests.support.cases import each_of

CALLBACK = "https://rp.example/cb"
PLAIN: dict[str, Any] = {"client_id": "c-1", "redirect_uris": [CALLBACK]}
CONFIDENTIAL = PLAIN | {"client_secret": STRONG}


def _clients(folder: Path, *entries: object) -> tuple[Client, ...]:
    reading = read(
        folder,
        PYLON_OIDC_CLIENTS=json.dumps(entries),
        PYLON_DEV_MODE="1",
        PYLON_OIDC_KEYS="managed",
        PYLON_OIDC_ALGS="RS256,PS256,ES256,Ed25519",
    )
    assert reading.faults == []
    return reading.settings.clients


def _fault(folder: Path, value: str) -> str:
    reading = read(folder, PYLON_OIDC_CLIENTS=value, PYLON_DEV_MODE="1")
    assert named(reading) == ["PYLON_OIDC_CLIENTS"]
    text = reading.faults[0].text
    wrong, separator, remedy = text.partition("; ")
    assert wrong and separator and remedy and text.isprintable() and len(text) < 300
    return text


def test_a_plain_client_is_a_public_one_with_every_scope(tmp_path: Path) -> None:
    """Without `client_secret` it is public; what is left out has its default."""
    (client,) = _clients(tmp_path, PLAIN)
    assert (client.client_id, client.redirect_uris, client.is_public) == ("c-1", (CALLBACK,), True)
    assert (client.source, client.name, client.first_party, client.require_pkce) == (
        "environment",
        "c-1",
        False,
        True,
    )
    assert client.grant_types == ("authorization_code", "refresh_token")
    assert set(client.scope) == {
        "openid",
        "profile",
        "email",
        "address",
        "phone",
        "offline_access",
        "roles",
        "groups",
    }


def test_of_a_secret_only_the_hash_is_kept(tmp_path: Path) -> None:
    """With `client_secret` it is confidential; the secret itself is nowhere."""
    (client,) = _clients(tmp_path, CONFIDENTIAL)
    assert not client.is_public
    assert [secret.hash for secret in client.secrets] == [hash_handle(STRONG)]
    assert client.has_secret(STRONG, now=0) and not client.has_secret(STRONG[:-1], now=0)
    assert STRONG not in repr(client) and "secret" not in json.dumps(client.public_metadata()).replace(
        "client_secret_basic", ""
    )


def test_clients_keep_their_order(tmp_path: Path) -> None:
    """A JSON array of clients."""
    entries = [PLAIN | {"client_id": name} for name in ("b", "a", "https://rp.example/")]
    assert [client.client_id for client in _clients(tmp_path, *entries)] == ["b", "a", "https://rp.example/"]


KEYS: dict[str, Any] = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",  # RFC 8037, appendix A.2
            "kid": "k",
        }
    ]
}
GOOD: dict[str, list[Any]] = {
    "client_id": ["a", "~" * 128, "https://rp.example/app"],
    "client_secret": [STRONG, f"{STRONG}-{STRONG[::-1]}" * 3, 'with blanks and "quotes" of 32 and more'],
    "redirect_uris": [
        ["https://rp.example"],
        ["https://rp.example:8443/cb?x=1&y=%20"],
        ["http://localhost:3000/cb", "http://127.0.0.1/cb", "http://[::1]:9/cb"],
        ["com.example.app:/callback"],
    ],
    "post_logout_redirect_uris": [[], ["https://rp.example/out", "com.example.app:/out"]],
    "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
    "grant_types": [["authorization_code"], ["authorization_code", "refresh_token"]],
    "response_types": [["code"]],
    "scope": ["openid", "openid profile email address phone offline_access roles"],
    "client_name": ["Zoë", "x" * 255],
    "client_uri": ["https://rp.example/"],
    "logo_uri": ["https://rp.example/logo.png", "http://localhost:3000/logo.png"],
    "policy_uri": ["https://rp.example/privacy"],
    "tos_uri": ["https://rp.example/terms"],
    "contacts": [["ops@rp.example"]],
    "id_token_signed_response_alg": ["RS256", "PS256", "ES256", "Ed25519"],
    "application_type": ["web", "native"],
    "first_party": [True, False],
    "require_pkce": [True, False],
    "resource_ids": [["https://api.example", "api"]],
    "id_token_claims": ["scope", "requested"],
    "claim_names": [{}, {"roles": "groups", "department": "x:/.-_9"}],
    "allow_any_scheme": [True, False],
    "default_scopes": [[], ["groups", "offline_access"]],
    "logout_by_hint": [True, False],
    "backchannel_logout_uri": ["https://rp.example/out?x=1", "https://rp.example:8443/out"],
    "backchannel_logout_session_required": [True, False],
    "jwks": [KEYS],
    "jwks_uri": ["https://rp.example/jwks", "https://rp.example:8443/keys?x=1"],
    "token_endpoint_auth_signing_alg": ["RS256", "PS256", "ES256", "Ed25519"],
    "assertion_audience": ["issuer", "token_endpoint"],
}
#: Members of clients that have keys and no secret.
OF_KEYS = ("jwks", "jwks_uri", "token_endpoint_auth_signing_alg", "assertion_audience")


def _with(member: str, value: Any) -> dict[str, Any]:
    """The metadata of a client that may have the member."""
    if member not in OF_KEYS:
        return CONFIDENTIAL | {member: value}
    keys = {} if member.startswith("jwks") else {"jwks": KEYS}
    return PLAIN | {"token_endpoint_auth_method": "private_key_jwt", **keys, member: value}


NO_TEXT: list[Any] = [None, 1, True, "", "a\nb", "a\u202eb", "x" * 256, ["a"], {}]
NO_FLAG: list[Any] = [None, 0, 1, "true", [], {}]
NO_URI = [
    None,
    1,
    "",
    "/cb",
    "rp.example/cb",
    "//rp.example/cb",
    "https:",
    "https://",
    "https:///cb",
    "https://rp.example/cb#",
    "https://rp.example/cb#x",
    "https://rp.example/a b",
    "https://rp.example/\u00e9",
    "https://rp.example/\n",
    "https://rp.example/<x>",
    "https://rp.example/\\x",
    "https://u:p@rp.example/cb",
    "https://*.rp.example/cb",
    "https://rp.example:port/cb",
    "https://rp.example:99999/cb",
    "https://[::1/cb",
    "http://rp.example/cb",
    "http://localhost.rp.example/cb",
    "http://127.0.0.2/cb",
    "javascript:alert(1)",
    "data:text/html,x",
    "myapp:/cb",
    "myapp://cb",
    "com.example.app:cb",
    "com.example.app://u@host/cb",
    "https://rp.example/" + "x" * 2048,
]
BAD: dict[str, list[Any]] = {
    "client_id": [None, 1, "", "a b", "é", "a\n", "a" * 129, ["a"]],
    "client_secret": [None, 1, "", "x" * 31, "x" * 31 + "é", "x" * 40 + "\n", "x" * 32, ["x" * 32]],
    "redirect_uris": [None, CALLBACK, {}, [], [None], *([uri] for uri in NO_URI), [CALLBACK] * 101],
    "post_logout_redirect_uris": [None, CALLBACK, *([uri] for uri in NO_URI)],
    "token_endpoint_auth_method": [
        None,
        "client_secret_jwt",
        "Client_Secret_Basic",
        ["client_secret_basic"],
        {},
    ],
    "grant_types": [None, "authorization_code", ["implicit"], ["password"], [None], [["a"]]],
    "response_types": [None, "code", [], ["token"], ["code", "code"], ["code id_token"]],
    "scope": [*NO_TEXT, ["openid"], "openid admin", "openid,profile", "OpenID"],
    "client_name": NO_TEXT,
    "client_uri": [*NO_URI, "com.example.app:/x"],
    "logo_uri": [*NO_URI, "com.example.app:/x", "data:image/png;base64,AA=="],
    "policy_uri": [*NO_URI, "com.example.app:/x"],
    "tos_uri": [*NO_URI, "com.example.app:/x"],
    "contacts": [None, "ops@rp.example", [None], [""]],
    "id_token_signed_response_alg": [None, "none", "HS256", "EdDSA", ["RS256"]],
    "application_type": [None, "browser", 1],
    "first_party": NO_FLAG,
    "require_pkce": NO_FLAG,
    "resource_ids": [None, "api", [None], [""]],
    "id_token_claims": [None, "", "all", True, ["scope"], {}],
    "claim_names": [
        None,
        [],
        "roles",
        {"roles": 1},
        {"roles": None},
        {"sub": "x"},
        {f"a{n}": f"b{n}" for n in range(65)},
    ],
    "allow_any_scheme": NO_FLAG,
    "default_scopes": [None, "groups", {}, [None], ["nonsense"], [""], ["groups"] * 101],
    "logout_by_hint": NO_FLAG,
    "backchannel_logout_uri": [*NO_URI, "ftp://rp.example/"],
    "backchannel_logout_session_required": NO_FLAG,
    "jwks": [
        None,
        [],
        {},
        {"keys": {}},
        {"keys": []},
        {"keys": [{"kty": "oct", "k": "AAAA"}]},
        "https://rp.example/jwks",
    ],
    "jwks_uri": [*NO_URI, "ftp://rp.example/"],
    "token_endpoint_auth_signing_alg": [None, "none", "HS256", ["RS256"], "ES512"],
    "assertion_audience": [None, "", "any", ["issuer"]],
}


@each_of("member", GOOD)
def test_a_good_member_is_taken(tmp_path: Path, member: str) -> None:
    """The members of a client."""
    for value in GOOD[member]:
        (client,) = _clients(tmp_path, _with(member, value))
        if member != "client_secret":
            assert client.public_metadata()[member] == value


@each_of("member", BAD)
def test_a_bad_member_is_told_by_its_name(tmp_path: Path, member: str) -> None:
    """The fault says which client and which member, what is wrong, and what to write instead."""
    for value in BAD[member]:
        text = _fault(tmp_path, json.dumps([PLAIN | {"client_id": "c-0"}, _with(member, value)]))
        shown = "" if member == "client_id" else " (c-1)"
        assert text.startswith(f"client 2{shown}, {member}: "), (value, text)


def test_these_tables_are_of_every_member() -> None:
    """A member without a good value and a bad one here is a member untested."""
    from service.protocol.clients import MEMBERS

    assert set(GOOD) == set(BAD) == set(MEMBERS)


@each_of(
    ("entry", "member"),
    [
        ({"redirect_uris": [CALLBACK]}, "client_id"),
        ({"client_id": "a"}, "redirect_uris"),
        (PLAIN | {"token_endpoint_auth_method": "client_secret_basic"}, "token_endpoint_auth_method"),
        (CONFIDENTIAL | {"token_endpoint_auth_method": "none"}, "client_secret"),
        (PLAIN | {"require_pkce": False}, "require_pkce"),
        (PLAIN | {"source": "database"}, "source"),
        (PLAIN | {"secrets": []}, "secrets"),
    ],
)
def test_what_members_must_agree_on(tmp_path: Path, entry: dict[str, Any], member: str) -> None:
    """What is missing, what a public client cannot have, and what is not for clients to say."""
    shown = f" ({entry['client_id']})" if "client_id" in entry else ""
    assert _fault(tmp_path, json.dumps([entry])).startswith(f"client 1{shown}, {member}: ")


def test_a_member_with_a_slip_is_told_with_the_nearest(tmp_path: Path) -> None:
    """An unknown member is a fault that suggests the nearest known name."""
    text = _fault(tmp_path, json.dumps([PLAIN | {"redirect_uri": CALLBACK}]))
    assert text.startswith("client 1 (c-1), redirect_uri: ") and "did you mean redirect_uris?" in text


@each_of("name", ["a\nb", "\x1b[31m", "<script>", "x" * 65, "", "a b", "\u202e"])
def test_a_hostile_member_name_is_not_repeated(tmp_path: Path, name: str) -> None:
    """docs/cli.md: one line each; no echo of what is not harmless."""
    assert _fault(tmp_path, json.dumps([PLAIN | {name: 1}])).startswith(
        "client 1 (c-1), a member: is not known"
    )


def test_two_clients_of_one_id_are_a_fault(tmp_path: Path) -> None:
    """Each `client_id` once."""
    assert _fault(tmp_path, json.dumps([PLAIN, CONFIDENTIAL])).startswith("client 2 (c-1), client_id: ")


def test_every_fault_of_every_client_is_told(tmp_path: Path) -> None:
    """docs/cli.md: every fault at once, one line each: of two clients, and of two members of one."""
    wrong = [
        {"client_id": "a", "redirect_uris": ["http://rp.example/cb"], "client_nam": "A"},
        PLAIN | {"client_id": "b"},
        {"client_id": "c", "scope": 5},
    ]
    reading = read(tmp_path, PYLON_OIDC_CLIENTS=json.dumps(wrong))
    told = [fault.text for fault in reading.faults if fault.name == "PYLON_OIDC_CLIENTS"]
    members = [
        "client 1 (a), redirect_uris",
        "client 1 (a), client_nam",
        "client 3 (c), scope",
        "client 3 (c), redirect_uris",
    ]
    assert [text.partition(":")[0] for text in told] == members
    assert all("; " in text and "\n" not in text for text in told)


CANARY = "canary7f3a"
LONG = CANARY * 4


@each_of(
    "value",
    [
        f'[{{"client_id": "a", "client_secret": "{LONG}"',
        f'{{"client_id": "a", "redirect_uris": ["{CALLBACK}"], "client_secret": "{LONG}"}}',
        f'["{LONG}"]',
        f"{LONG}",
        json.dumps([PLAIN | {"client_secret": CANARY}]),
        json.dumps([PLAIN | {"client_secret": [LONG]}]),
        json.dumps([PLAIN | {"client_secret": LONG + "é"}]),
        json.dumps([PLAIN | {"client_secrets": LONG}]),
        json.dumps([PLAIN | {"client_secret": LONG, "scope": LONG}]),
        json.dumps([PLAIN | {"client_secret": LONG, "redirect_uris": [f"https://u:{LONG}@rp.example"]}]),
        json.dumps([{"client_id": "a", "client_secret": LONG}]),
        json.dumps([CONFIDENTIAL, CONFIDENTIAL | {"client_secret": LONG}]),
        json.dumps([PLAIN | {"client_secret": LONG, "token_endpoint_auth_method": "none"}]),
    ],
)
def test_no_secret_of_a_client_is_in_a_fault(tmp_path: Path, value: str) -> None:
    """docs/cli.md: no secret's value, wherever in the clients the fault is."""
    assert CANARY not in _fault(tmp_path, value)
    reading = read(tmp_path, PYLON_OIDC_CLIENTS=value)
    assert CANARY not in repr(reading) + str(reading.faults) + str(reading.warnings)


def test_clients_may_be_a_file(tmp_path: Path) -> None:
    """`NAME_FILE`: clients have secrets in them."""
    file = tmp_path / "clients.json"
    file.write_text(json.dumps([CONFIDENTIAL], indent=2) + "\n")
    reading = read(tmp_path, PYLON_OIDC_CLIENTS_FILE=str(file), PYLON_DEV_MODE="1")
    assert reading.faults == []
    assert [client.client_id for client in reading.settings.clients] == ["c-1"]


HR = '{"hr": {"claims": ["department"], "description": "see your department"}}'


def test_a_clients_scope_is_among_the_operators_own(tmp_path: Path) -> None:
    """The words of `PYLON_OIDC_SCOPES` are scopes like the others: all are a client's that says nothing."""
    entries = [PLAIN, PLAIN | {"client_id": "c-2", "scope": "openid hr", "default_scopes": ["hr"]}]
    reading = read(tmp_path, PYLON_OIDC_CLIENTS=json.dumps(entries), PYLON_OIDC_SCOPES=HR, PYLON_DEV_MODE="1")
    assert reading.faults == []
    first, second = reading.settings.clients
    assert first.scope[-1] == "hr" and second.scope == ("openid", "hr")
    assert "PYLON_OIDC_CLIENTS" in named(
        read(tmp_path, PYLON_OIDC_CLIENTS=json.dumps(entries), PYLON_DEV_MODE="1")
    )


def test_scopes_that_cannot_be_read_blame_no_client(tmp_path: Path) -> None:
    """docs/cli.md: a fault of one setting hides none of another, and makes none up."""
    entries = [PLAIN | {"scope": "openid hr"}]
    reading = read(tmp_path, PYLON_OIDC_CLIENTS=json.dumps(entries), PYLON_OIDC_SCOPES="{")
    assert "PYLON_OIDC_SCOPES" in named(reading) and "PYLON_LOGIN_URL" in named(reading)
    assert not [fault for fault in reading.faults if "unknown scope" in fault.text]
    wrong = [PLAIN | {"scope": "openid hr", "client_nam": "x"}]
    reading = read(tmp_path, PYLON_OIDC_CLIENTS=json.dumps(wrong), PYLON_OIDC_SCOPES="{", PYLON_DEV_MODE="1")
    assert sorted(named(reading)) == ["PYLON_OIDC_CLIENTS", "PYLON_OIDC_SCOPES"]


def test_two_sources_for_one_name_are_a_fault(tmp_path: Path) -> None:
    """One name has one source: an attribute that the client's scopes give counts like any claim."""
    entries = [PLAIN | {"claim_names": {"roles": "department"}}]
    reading = read(tmp_path, PYLON_OIDC_CLIENTS=json.dumps(entries), PYLON_OIDC_SCOPES=HR, PYLON_DEV_MODE="1")
    (fault,) = reading.faults
    assert fault.text.startswith("client 1 (c-1), claim_names: department would be both")
