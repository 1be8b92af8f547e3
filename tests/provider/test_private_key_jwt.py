"""Clients that authenticate with their own key: what is accepted, and every refusal (RFC 7523, docs/relying-parties.md)."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from service.client_keys import ClientKeys
from service.keys.others import is_signed_by, read_unverified, usable_keys
from service.outbound.fetcher import Outbound
from service.outbound.slots import Slots
from service.protocol.clients import parse_client
from service.protocol.errors import OAuthError
from service.records.clients import STRANGERS
from service.startup import open_store
from service.storage.interface import NEVER, Kind
from tests.outbound.attacking import Answering, Attacker, ok
from tests.provider.browser import FORM
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, ISSUER, SECRET, Provider
from tests.provider.test_client_auth import basic
from tests.support.gunicorn import Answer

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RSA = RSAKey.import_key(rsa.generate_private_key(65537, 2048))
_EC = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
_OKP = OKPKey.import_key(ed25519.Ed25519PrivateKey.generate())
_KEYS: Mapping[str, Any] = {"rsa": _RSA, "ec": _EC, "okp": _OKP}
_USUAL = {
    "client_id": "c-keys",
    "redirect_uris": [CALLBACK],
    "first_party": True,
    "token_endpoint_auth_method": "private_key_jwt",
}
_NEVER = "none of these"
NOW = 1_800_000_000


def public(*names: str, **more: Any) -> dict[str, Any]:
    """A JWK Set of some of the keys; their kids are their names."""
    return {"keys": [_KEYS[name].as_dict(private=False) | {"kid": name} | more for name in names]}


CLIENTS = [
    _USUAL | {"jwks": public("rsa", "ec", "okp")},
    _USUAL | {"client_id": "c-es256", "jwks": public("ec"), "token_endpoint_auth_signing_alg": "ES256"},
    _USUAL | {"client_id": "c-eddsa", "jwks": public("okp"), "token_endpoint_auth_signing_alg": "EdDSA"},
    _USUAL | {"client_id": "c-endpoint", "jwks": public("ec"), "assertion_audience": "token_endpoint"},
    {"client_id": "c-basic", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True},
]


def assertion(
    now: float,
    *,
    client_id: str = "c-keys",
    key: str = "ec",
    alg: str = "ES256",
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """An assertion as a client makes it; `_NEVER` takes a member out."""
    usual: dict[str, Any] = {
        "iss": client_id,
        "sub": client_id,
        "aud": ISSUER,
        "jti": secrets.token_urlsafe(16),
        "iat": int(now),
        "exp": int(now) + 60,
    }
    said = {name: value for name, value in (usual | claims).items() if value != _NEVER}
    head = {
        name: value
        for name, value in ({"alg": alg, "kid": key} | dict(header or {})).items()
        if value != _NEVER
    }
    registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
    return joserfc_jwt.encode(head, said, _KEYS[key], registry=registry)


def ask(
    op: Provider,
    text: str | None,
    path: str = "/oidc/introspect",
    authorization: str | None = None,
    **form: str | None,
) -> Answer:
    """Ask something with an assertion; None takes a parameter out."""
    usual = {
        "client_assertion": text,
        "client_assertion_type": TYPE,
        "token": "x",
        "grant_type": "authorization_code",
        "code": "x",
    }
    sent = {name: value for name, value in {**usual, **form}.items() if value is not None}
    headers = {} if authorization is None else {"Authorization": authorization}
    return op.ask("POST", path, headers=headers, body=urlencode(sent).encode(), content_type=FORM)


def _is_refused(op: Provider, answer: Answer, *, case: str = "") -> None:
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client"), (case, answer)


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    return serve_provider(CLIENTS)


def test_every_algorithm_counts_at_every_endpoint(op: Provider) -> None:
    """RFC 7523 §3, RFC 8414 §2: RS256, PS256, ES256 and Ed25519, at token, introspection, revocation and device authorization."""
    now = op.clock()
    for key, alg in (
        ("rsa", "RS256"),
        ("rsa", "PS256"),
        ("ec", "ES256"),
        ("okp", "Ed25519"),
        ("okp", "EdDSA"),
    ):
        assert ask(op, assertion(now, key=key, alg=alg)).json() == {"active": False}, alg
        assert ask(op, assertion(now, key=key, alg=alg), "/oidc/revoke").status == 200
        assert ask(op, assertion(now, key=key, alg=alg), "/oidc/token").json()["error"] == "invalid_grant"
        device = ask(op, assertion(now, key=key, alg=alg), "/oidc/device_authorization")
        assert device.json()["error"] == "unauthorized_client"  # it is known, and has another grant type
    for alg in ("Ed25519", "EdDSA"):  # one algorithm with two names
        assert ask(op, assertion(now, client_id="c-eddsa", key="okp", alg=alg)).status == 200


def test_what_an_assertion_may_say(op: Provider) -> None:
    """RFC 7523 §3: `aud` as a string or a list of one, times within their margins, and each `typ` that is allowed."""
    now = int(op.clock())
    for said in (
        {"header": {"typ": "JWT"}}, {"header": {"typ": "client-authentication+jwt"}}, {"header": {"typ": "application/client-authentication+jwt"}},
        {"header": {"kid": _NEVER}}, {"aud": [ISSUER]}, {"iat": _NEVER}, {"nbf": now + 30}, {"iat": now + 30}, {"exp": now + 300},
        {"exp": now + 60.5}, {"iat": now - 100_000}, {"client_id": "c-endpoint", "aud": f"{ISSUER}/oidc/token"}, {"client_id": "c-endpoint"},
    ):  # fmt: skip
        assert ask(op, assertion(now, **said)).status == 200, said
    assert ask(op, assertion(now), client_id="c-keys").status == 200


def test_every_refusal_is_invalid_client_and_its_cause_is_in_the_log_only(op: Provider) -> None:
    """RFC 7521 §4.2.1, RFC 7523 §3.2: the client sees one answer, the operator the cause."""
    now = int(op.clock())
    bad_signature = assertion(now)[:-8] + "AAAAAAAA"
    none = ".".join(
        [
            base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode(),
            *assertion(now).split(".")[1:2],
            "",
        ]
    )
    cases: dict[str, tuple[str | None, str]] = {
        "signature": (bad_signature, "assertion_signature_wrong"),
        "none": (none, "assertion_algorithm_refused"),
        "HS256 with the public key": (pyjwt.encode({"iss": "c-keys", "sub": "c-keys", "aud": ISSUER, "jti": "a", "exp": now + 60}, "x" * 64, "HS256"), "assertion_algorithm_refused"),
        "another registered alg": (assertion(now, client_id="c-es256", key="rsa", alg="RS256"), "assertion_algorithm_refused"),
        "another key": (assertion(now, client_id="c-es256", key="ec", header={"kid": "no"}), "assertion_signature_wrong"),
        "typ of an access token": (assertion(now, header={"typ": "at+jwt"}), "assertion_of_another_type"),
        "typ of a request object": (assertion(now, header={"typ": "oauth-authz-req+jwt"}), "assertion_of_another_type"),
        "typ null": (_with_header(now, {"typ": None}), "assertion_of_another_type"),
        "typ no text": (_with_header(now, {"typ": 1}), "assertion_of_another_type"),
        "crit": (_with_header(now, {"crit": ["x"], "x": 1}), "assertion_critical_header"),
        "jwk": (_forged(now, {"jwk": _EC.as_dict(private=False)}), "assertion_signature_wrong"),
        "jku": (_forged(now, {"jku": "https://evil.example/jwks"}), "assertion_signature_wrong"),
        "iss of another": (assertion(now, iss="c-basic"), "assertion_of_another_client"),
        "sub missing": (assertion(now, sub=_NEVER), "assertion_malformed"),
        "unknown client": (assertion(now, client_id="nobody"), "client_unknown"),
        "client with a secret": (assertion(now, client_id="c-basic"), "auth_method_not_registered"),
        "aud": (assertion(now, aud="https://other.example"), "assertion_audience_wrong"),
        "aud slash": (assertion(now, aud=ISSUER + "/"), "assertion_audience_wrong"),
        "aud two": (assertion(now, aud=[ISSUER, "https://other.example"]), "assertion_audience_wrong"),
        "aud missing": (assertion(now, aud=_NEVER), "assertion_audience_wrong"),
        "aud endpoint": (assertion(now, aud=f"{ISSUER}/oidc/token"), "assertion_audience_wrong"),
        "exp over": (assertion(now, exp=now), "assertion_expired"),
        "exp missing": (assertion(now, exp=_NEVER), "assertion_expired"),
        "exp text": (assertion(now, exp=str(now + 60)), "assertion_expired"),
        "exp true": (assertion(now, exp=True), "assertion_expired"),
        "exp far": (assertion(now, exp=now + 301), "assertion_lives_too_long"),
        "iat": (assertion(now, iat=now + 31), "assertion_from_the_future"),
        "nbf": (assertion(now, nbf=now + 31), "assertion_from_the_future"),
        "nbf text": (assertion(now, nbf="x"), "assertion_from_the_future"),
        "jti missing": (assertion(now, jti=_NEVER), "assertion_without_jti"),
        "jti empty": (assertion(now, jti=""), "assertion_without_jti"),
        "jti number": (assertion(now, jti=1), "assertion_without_jti"),
        "exp beyond any float": (assertion(now, exp=10**400), "assertion_lives_too_long"),
        "iat beyond any float": (assertion(now, iat=10**400), "assertion_from_the_future"),
        "exp infinite": (assertion(now, exp=float("inf")), "assertion_expired"),
        "jti no text of UTF-8": (_with_header(now, {}, jti="\ud800"), "assertion_without_jti"),
        "sub no text of UTF-8": (_with_claims({"sub": "\ud800"}), "assertion_malformed"),
        "deep": (_with_claims({"sub": "c-keys", "x": 1}, deep=True), "assertion_malformed"),
        "no JWT": ("x", "assertion_malformed"),
        "five parts": ("a.b.c.d.e", "assertion_malformed"),
    }  # fmt: skip
    for case, (text, cause) in cases.items():
        for path in ("/oidc/introspect", "/oidc/token", "/oidc/revoke"):
            answer = ask(op, text, path)
            _is_refused(op, answer, case=case)
            assert (
                answer.json()["error_description"]
                == "The client is unknown, or did not authenticate as it is registered to."
            )
        assert op.house.requests_logged[-1]["cause"] == cause, case


def test_few_keys_are_tried() -> None:
    """docs/relying-parties.md: eight at most, whatever the set has: a stranger's set could otherwise cost 30 ms a request."""
    keys = [ECKey.import_key(ec.generate_private_key(ec.SECP256R1())) for _ in range(9)]
    claims = {"sub": "x"}
    for kids in ([None] * 9, ["same"] * 9):
        named = [
            each.as_dict(private=False) | ({} if kid is None else {"kid": kid})
            for each, kid in zip(keys, kids, strict=True)
        ]
        known = usable_keys({"keys": named})
        for number, is_tried in ((0, True), (7, True), (8, False)):
            header = {} if kids[0] is None else {"kid": kids[0]}
            text = pyjwt.encode(claims, keys[number].as_pem(private=True), "ES256", headers=header)
            unverified = read_unverified(text)
            assert unverified is not None
            assert is_signed_by(unverified, known) is is_tried


def _forged(now: int, header: Mapping[str, Any]) -> str:
    """Signed by a key that only the header says to be the client's."""
    stranger = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
    if "jwk" in header:
        header = {"jwk": stranger.as_dict(private=False)}
    signer = pyjwt.encode(
        {"iss": "c-keys", "sub": "c-keys", "aud": ISSUER, "jti": "forged", "exp": now + 60},
        stranger.as_pem(private=True),
        "ES256",
        headers={"kid": "ec", **header},
    )
    return str(signer)


def _with_claims(claims: Mapping[str, Any], *, deep: bool = False) -> str:
    """A JWT without a valid signature."""
    said = b"[" * 20_000 if deep else json.dumps(claims).encode()
    head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"ES256"}', said))
    return f"{head}.{body}.AAAA"


def _with_header(now: int, header: Mapping[str, Any], **said: Any) -> str:
    """Signed by the client's key, with any header."""

    def part(value: Mapping[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    claims = {"iss": "c-keys", "sub": "c-keys", "aud": ISSUER, "jti": f"h{header}", "exp": now + 60} | said
    signed = part({"alg": "ES256", "kid": "ec", **header}) + b"." + part(claims)
    signature = pyjwt.get_algorithm_by_name("ES256").sign(signed, _EC.private_key)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_ways_to_authenticate_are_not_mixed(op: Provider) -> None:
    """RFC 6749 §2.3, RFC 7521 §4.2."""
    now = op.clock()
    for options in (
        {"authorization": basic("c-keys", SECRET)},
        {"client_secret": SECRET},
        {"client_id": "c-basic", "client_secret": SECRET},
    ):
        answer = ask(op, assertion(now), **options)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request"), options
    for text, options in ((assertion(now), {"client_assertion_type": None}), (None, {}), ("", {})):
        answer = ask(op, text, **options)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    for options in (
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_id": "c-basic"},
    ):
        _is_refused(op, ask(op, assertion(now), **options))
    # Without an assertion it is not a public client, and it has no secret.
    for form in ({"client_id": "c-keys"}, {"client_id": "c-keys", "client_secret": SECRET}):
        _is_refused(op, ask(op, None, client_assertion_type=None, **form))


def test_an_assertion_counts_once(op: Provider) -> None:
    """RFC 7523 §3: at any endpoint, and also if the request that used it failed; a refused one is not used up."""
    now = op.clock()
    used = assertion(now)
    assert ask(op, used, "/oidc/token").json()["error"] == "invalid_grant"
    for path in ("/oidc/token", "/oidc/introspect", "/oidc/revoke"):
        _is_refused(op, ask(op, used, path))
    jti = "only-once"
    _is_refused(op, ask(op, assertion(now, jti=jti, aud="x")))
    assert ask(op, assertion(now, jti=jti)).status == 200
    # Another client's ids are its own.
    assert ask(op, assertion(now, client_id="c-es256", jti=jti)).status == 200


def test_many_at_once_use_an_assertion_once(op: Provider) -> None:
    """RFC 7523 §3: of requests that come at once with one `jti`, exactly one succeeds."""
    text = assertion(op.clock())
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(ask(op, text).status)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(statuses) == [200] + [401] * 7


def test_the_metadata_of_clients_with_keys(op: Provider) -> None:
    """docs/settings.md: exactly one of `jwks` and `jwks_uri`, public keys that are strong enough, no secret."""
    good = {name: value for name, value in _USUAL.items() if name != "client_id"}
    weak = RSAKey.import_key(rsa.generate_private_key(65537, 1024)).as_dict(private=False)
    uri = "https://client.example.com/jwks"
    for changed, member in (
        ({}, "token_endpoint_auth_method"),
        ({"jwks": public("ec"), "jwks_uri": uri}, "jwks"),
        ({"jwks": public("ec"), "client_secret": SECRET}, "client_secret"),
        ({"jwks": {"keys": []}}, "jwks"), ({"jwks": {}}, "jwks"), ({"jwks": []}, "jwks"), ({"jwks": {"keys": [1]}}, "jwks"), ({"jwks": {"keys": [{"kty": []}]}}, "jwks"),
        ({"jwks": {"keys": [_EC.as_dict(private=True)]}}, "jwks"), ({"jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}}, "jwks"),
        ({"jwks": {"keys": [weak]}}, "jwks"), ({"jwks": public("ec", use="enc")}, "jwks"), ({"jwks": public("ec", key_ops=["sign"])}, "jwks"), ({"jwks": public("ec", use=["sig"])}, "jwks"),
        ({"jwks": public("ec", alg="RS256")}, "jwks"), ({"jwks": public("ec", alg="ES512")}, "jwks"), ({"jwks": public("ec", x="AAAA")}, "jwks"), ({"jwks": public("ec", kid=1)}, "jwks"),
        ({"jwks": public("rsa", e="AQ")}, "jwks"), ({"jwks": public("ec", crv="P-384")}, "jwks"),
        ({"jwks_uri": "ftp://client.example.com/"}, "jwks_uri"), ({"jwks_uri": "https://u@client.example.com/"}, "jwks_uri"), ({"jwks_uri": 1}, "jwks_uri"),
        ({"jwks": public("ec"), "token_endpoint_auth_signing_alg": "HS256"}, "token_endpoint_auth_signing_alg"),
        ({"jwks": public("ec"), "assertion_audience": "both"}, "assertion_audience"),
        ({"token_endpoint_auth_method": "client_secret_basic", "jwks": public("ec")}, "jwks"),
        ({"token_endpoint_auth_method": "client_secret_jwt"}, "token_endpoint_auth_method"),
        ({"token_endpoint_auth_method": "none", "jwks_uri": uri}, "jwks_uri"),
    ):  # fmt: skip
        answer = op.app.call("POST", "/api/oidc/clients", good | changed)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "INVALID_CLIENT_METADATA"), changed
        assert member in answer.body.decode(), (changed, answer.body.decode())
        if "d" in json.dumps(changed):
            assert str(_EC.as_dict(private=True)["d"]) not in answer.body.decode()
    answer = op.app.call(
        "POST", "/api/oidc/clients", good | {"jwks_uri": uri, "token_endpoint_auth_signing_alg": "PS256"}
    )
    made = answer.json()
    assert answer.status == 201 and "client_secret" not in made
    assert (made["jwks_uri"], made["token_endpoint_auth_signing_alg"]) == (uri, "PS256")
    path = f"/api/oidc/clients/{made['client_id']}"
    assert op.app.call("GET", path).json()["jwks_uri"] == uri
    assert op.app.call("POST", f"{path}/secret").status == 404


def test_a_client_changes_between_a_secret_and_keys(op: Provider) -> None:
    """RFC 7523 §3: a client that changes to keys loses its secret; one that changes to a secret sends it; none becomes public."""
    made = op.app.call("POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], "first_party": True}).json()
    client_id, path = made["client_id"], f"/api/oidc/clients/{made['client_id']}"
    token = {"token": "x"}
    with_secret = op.rp(client_id, secret=made["client_secret"], method="client_secret_basic")
    assert with_secret.post("/oidc/introspect", token).status == 200
    keys = {
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": public("ec"),
    }
    assert op.app.call("PUT", path, keys).status == 200
    assert with_secret.post("/oidc/introspect", token).status == 401
    assert ask(op, assertion(op.clock(), client_id=client_id)).status == 200
    secret = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_basic"}
    assert op.app.call("PUT", path, secret).status == 400
    assert op.app.call("PUT", path, {"redirect_uris": [CALLBACK]}).status == 400
    assert op.app.call("PUT", path, secret | {"token_endpoint_auth_method": "none"}).status == 400
    assert op.app.call("PUT", path, secret | {"client_secret": SECRET}).status == 200
    assert ask(op, assertion(op.clock(), client_id=client_id)).status == 401
    assert (
        op.rp(client_id, secret=SECRET, method="client_secret_basic").post("/oidc/introspect", token).status
        == 200
    )


def test_discovery_says_it(op: Provider) -> None:
    """RFC 8414 §2: the method and its algorithms, for each endpoint."""
    document = op.ask("GET", "/.well-known/openid-configuration").json()
    algs = ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"]
    for endpoint in ("token", "introspection", "revocation"):
        assert "private_key_jwt" in document[f"{endpoint}_endpoint_auth_methods_supported"]
        assert "client_secret_jwt" not in document[f"{endpoint}_endpoint_auth_methods_supported"]
        assert document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == algs


# --- keys at the client's own URL ---


class KeyServer:
    """The client's server: what it answers may change."""

    def __init__(self) -> None:
        self.answer = ok(json.dumps(public("ec")).encode())
        self.serve: Callable[[Any], None] = lambda wire: Answering(self.answer)(wire)
        self.server = Attacker(lambda wire: self.serve(wire))
        self.uri = f"http://127.0.0.1:{self.server.port}/jwks"

    @property
    def asked(self) -> int:
        return self.server.met


@pytest.fixture
def client() -> Iterator[KeyServer]:
    made = KeyServer()
    with made.server:
        yield made


def _with_uri(serve_provider: ServeProvider, client: KeyServer) -> Provider:
    return serve_provider([_USUAL | {"jwks_uri": client.uri}], PYLON_OUTBOUND_ALLOW="127.0.0.1")


def test_keys_of_a_url_are_cached_and_a_swap_goes_on(
    serve_provider: ServeProvider, client: KeyServer
) -> None:
    """RFC 7523 §3: 10 minutes; an unknown kid asks again, once a minute."""
    op = _with_uri(serve_provider, client)
    for _ in range(3):
        assert ask(op, assertion(op.clock())).status == 200
    assert client.asked == 1
    client.answer = ok(json.dumps(public("okp")).encode())
    op.clock.advance(61)
    swapped: dict[str, Any] = {"key": "okp", "alg": "EdDSA"}
    assert ask(op, assertion(op.clock(), **swapped)).status == 200
    assert client.asked == 2
    for _ in range(5):  # within a minute nobody makes us ask
        _is_refused(op, ask(op, assertion(op.clock(), header={"kid": "unknown"})))
    assert client.asked == 2
    assert ask(op, assertion(op.clock(), **swapped)).status == 200
    op.clock.advance(599)
    assert ask(op, assertion(op.clock(), **swapped)).status == 200
    assert client.asked == 2
    op.clock.advance(1)
    assert ask(op, assertion(op.clock(), **swapped)).status == 200
    assert client.asked == 3


def test_the_operator_sees_what_became_of_the_last_request(
    serve_provider: ServeProvider, client: KeyServer
) -> None:
    """docs/endpoints.md: which client, when, and why it failed, as the log has it; nothing is asked for it."""
    op = _with_uri(serve_provider, client)
    usual = {
        "client_id": "c-keys",
        "jwks_uri": client.uri,
        "asked_at": None,
        "fetched_at": None,
        "failure": None,
    }

    def listed() -> Any:
        return op.app.call("GET", "/api/oidc/client-keys").json()["client_keys"]

    assert listed() == [usual]
    assert client.asked == 0
    begun = int(op.clock())
    assert ask(op, assertion(begun)).status == 200
    assert listed() == [usual | {"asked_at": begun, "fetched_at": begun}]
    for answer, failure in (
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "the answer has status 404"),
        (ok(b"no JSON"), "the answer is not JSON"),
        (
            ok(b'{"keys": []}'),
            "the answer has no key that verifies a signature; use an RSA, P-256 or Ed25519 key",
        ),
        (b"", "answer_malformed"),
    ):
        client.answer = answer
        op.clock.advance(700)
        assert ask(op, assertion(op.clock())).status == 200
        assert listed() == [usual | {"asked_at": int(op.clock()), "fetched_at": begun, "failure": failure}], (
            failure
        )
    op.clock.advance(86_400 - 4 * 700)  # the earlier keys no longer count
    _is_refused(op, ask(op, assertion(op.clock())))
    assert listed() == [usual | {"asked_at": int(op.clock()), "failure": "answer_malformed"}]
    client.answer = ok(json.dumps(public("ec")).encode())
    op.clock.advance(61)
    assert ask(op, assertion(op.clock())).status == 200
    assert listed() == [usual | {"asked_at": int(op.clock()), "fetched_at": int(op.clock())}]
    assert op.ask("GET", "/api/oidc/client-keys").status == 403


def test_the_keys_of_strangers_are_not_the_operators_concern() -> None:
    """docs/endpoints.md: the list leaves out strangers: their failing URLs do not concern the operator."""
    client = parse_client(_USUAL | {"jwks_uri": "https://a.example/jwks"}, source="database")
    strangers = [replace(client, client_id=source, source=source) for source in STRANGERS]
    empty: Any = SimpleNamespace(get=lambda *_, **__: None)
    (seen,) = ClientKeys(empty, Outbound()).seen([*strangers, client], now=1)
    assert seen.client_id == client.client_id


def test_the_keys_of_strangers_leave_one_row(op: Provider) -> None:
    """docs/security.md: no row for an unused stranger, however often it changes its URL; one row for each stranger in use."""
    asked: list[str] = []

    def get(url: str, **_: Any) -> SimpleNamespace:
        asked.append(url)
        return SimpleNamespace(status=200, body=json.dumps(public("ec")).encode())

    unused = parse_client(_USUAL | {"jwks_uri": "https://a.example/1"}, source="registration")
    unused, outbound = replace(unused, row_ends_at=2**31), cast(Outbound, SimpleNamespace(get=get))
    with closing(open_store(op.house.settings)) as store:
        keys = ClientKeys(store, outbound)
        for client, rows in ((unused, 0), (replace(unused, row_ends_at=NEVER), 1)):
            for n in range(3):
                moved = replace(client, jwks_uri=f"https://{rows}.example/{n}")
                assert len(keys.current(moved, now=NOW)) == 1
                assert keys.current(moved, now=NOW + 59) and keys.again(moved, now=NOW + 59) == ()
            assert len(asked) == 3 and not asked.clear()
            assert len(store.list(Kind.REPLAY_MARKER, now=NOW)) == rows
        assert ClientKeys(store, outbound).current(moved, now=NOW + 59) and not asked  # of the other process
        for n in range(150):
            keys.current(replace(unused, client_id=f"r_{n}"), now=NOW + 59)
        assert len(keys._of_strangers.known) <= 100 and len(keys._of_strangers.read) <= 100


def test_slow_hosts_do_not_stop_a_stranger_whose_keys_are_stored(op: Provider) -> None:
    """docs/security.md: a process that has just started has the keys that another one fetched, although every slot is taken; one without stored keys is answered 503."""
    asked: list[str] = []

    def get(url: str, **_: Any) -> SimpleNamespace:
        asked.append(url)
        return SimpleNamespace(status=200, body=json.dumps(public("ec")).encode())

    outbound = cast(Outbound, SimpleNamespace(get=get))
    client = parse_client(_USUAL | {"jwks_uri": "https://a.example/1"}, source="registration")
    with closing(open_store(op.house.settings)) as store, ExitStack() as held:
        ClientKeys(store, outbound).current(client, now=NOW)
        slots = Slots()
        for host in ("b.example", "c.example", "d.example", "e.example"):
            assert held.enter_context(slots.for_stranger(host))
        keys = ClientKeys(store, outbound, slots)
        assert len(keys.current(client, now=NOW + 3600)) == 1
        for refused in (
            lambda: keys.again(client, now=NOW + 3600),  # an unknown key: nobody can look for it now
            lambda: keys.current(client, now=NOW + 86_400),
            lambda: keys.current(replace(client, client_id="other"), now=NOW),
        ):
            with pytest.raises(OAuthError) as refusal:
                refused()
            assert refusal.value.error == "temporarily_unavailable"
    assert len(asked) == 1


def test_a_url_that_is_down_keeps_the_last_keys_for_a_day(
    serve_provider: ServeProvider, client: KeyServer
) -> None:
    """docs/relying-parties.md: an outage of the URL stops nobody for 24 hours."""
    op = _with_uri(serve_provider, client)
    assert ask(op, assertion(op.clock())).status == 200
    for answer in (
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        ok(b"no JSON"),
        ok(b'{"keys": []}'),
        ok(b"[" * 60_000),
        b"",
    ):
        client.answer = answer
        op.clock.advance(700)
        before = client.asked
        assert ask(op, assertion(op.clock())).status == 200, answer
        assert ask(op, assertion(op.clock())).status == 200
        assert client.asked == before + 1
    op.clock.advance(86_400 - 5 * 700 - 1)
    assert ask(op, assertion(op.clock())).status == 200
    op.clock.advance(1)
    _is_refused(op, ask(op, assertion(op.clock())))
    # It comes back.
    client.answer = ok(json.dumps(public("ec")).encode())
    op.clock.advance(61)
    assert ask(op, assertion(op.clock())).status == 200
    op.clock.advance(200_000)  # the record of it has ended long ago
    assert ask(op, assertion(op.clock())).status == 200


def test_a_hostile_document_does_no_harm(serve_provider: ServeProvider, client: KeyServer) -> None:
    """RFC 7523 §3: keys of any form next to a good one are left out, private ones too; what is stored is only what verifies."""
    entries = [
        1, None, [], {}, {"kty": []}, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, _EC.as_dict(private=True) | {"kid": "ec"},
        {"kty": "EC", "crv": "P-256", "x": "\ud800", "y": 1}, {"kty": "EC", "crv": {}, "x": "a"}, _OKP.as_dict(private=False) | {"kid": "\ud800"},
        _OKP.as_dict(private=False) | {"use": {}, "kid": "okp"}, _OKP.as_dict(private=False) | {"alg": {}}, _OKP.as_dict(private=False) | {"key_ops": 1},
        {"kty": "RSA", "e": "AQAB", "n": "_" * 4000}, _EC.as_dict(private=False) | {"kid": "ec", "x5c": ["\ud800\u0000"], "alg": "ES256"},
    ]  # fmt: skip
    client.answer = ok(json.dumps({"keys": entries}).encode())
    op = _with_uri(serve_provider, client)
    assert ask(op, assertion(op.clock())).status == 200
    _is_refused(op, ask(op, assertion(op.clock(), key="okp", alg="EdDSA")))
    for document in (
        "[]",
        "null",
        "1",
        '{"keys": {}}',
        '{"keys": [' + "1," * 200 + "1]}",
        '"\\ud800"',
        "\xff",
    ):
        client.answer = ok(document.encode("latin-1"))
        op.clock.advance(700)
        assert ask(op, assertion(op.clock())).status == 200, document


def test_many_at_once_ask_a_url_once(serve_provider: ServeProvider, client: KeyServer) -> None:
    """docs/relying-parties.md: the URL is asked once, whatever the number of requests."""
    op = _with_uri(serve_provider, client)
    answering = client.serve

    def slowly(wire: Any) -> None:
        time.sleep(0.2)
        answering(wire)

    client.serve = slowly
    now, statuses = op.clock(), []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(op, assertion(now)).status)) for _ in range(6)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert statuses == [200] * 6
    assert client.asked == 1


def test_a_url_that_the_operator_did_not_allow_is_not_asked(
    serve_provider: ServeProvider, client: KeyServer
) -> None:
    """docs/security.md: an address of a private network is a fault at the start."""
    with pytest.raises(AssertionError, match="jwks_uri: http is only for hosts"):
        serve_provider([_USUAL | {"jwks_uri": client.uri}])
    assert client.asked == 0
