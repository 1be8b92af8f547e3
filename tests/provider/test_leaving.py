"""An audience that leaves its algorithm, and secrets that change: what is signed, and what is still taken (docs/leave-hs256.md).

Spec: RFC 8725 §3.1; RFC 7662 §2
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import pytest

from service.app import create_app
from service.settings import read_settings
from service.startup import prepare
from tests.http.driver import Clock, House, refused, unverified_claims
from tests.http.test_trusted_mint import mac
from tests.http.test_trusted_mint import post as trusted_mint
from tests.policies.test_policy_command import written
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, Provider
from tests.provider.test_policies import KEYS, mint, verified
from tests.support.gunicorn import ADMIN, SECRET, TRUSTED, Answer

BILLING: Final = "https://billing.example.com"
OLD: Final = SECRET[::-1]
MOVING: Final = f"""
[audience.api]
alg = "HS256"
lifetime_s = 600
migrate = {{ to = "ES256", percent = %d }}

[audience."{BILLING}"]
alg = "RS256"
lifetime_s = 600
grants = ["mint", "authorization_code", "client_credentials"]
migrate = {{ to = "ES256", percent = %d }}
"""
MACHINES: Final[list[dict[str, Any]]] = [
    {
        "client_id": f"job-{number}",
        "client_secret": hashlib.sha256(b"%d" % number).hexdigest(),
        "grant_types": ["client_credentials"],
    }
    for number in range(12)
]
WIKI: Final[dict[str, Any]] = {
    "client_id": "wiki", "client_secret": hashlib.sha256(b"wiki").hexdigest(), "redirect_uris": [CALLBACK], "first_party": True,
}  # fmt: skip


@pytest.fixture
def serve_moving(serve_provider: ServeProvider, tmp_path: Path) -> Callable[[int], Provider]:
    """Make a provider that has moved so many of a hundred callers."""

    def make(percent: int) -> Provider:
        file = written(tmp_path, MOVING % (percent, percent))
        return serve_provider([*MACHINES, WIKI], PYLON_POLICIES=file, **KEYS)

    return make


def header_alg(token: str) -> str:
    """The algorithm that a token says it is signed with."""
    return str(pyjwt.get_unverified_header(token)["alg"])


def introspected(op: Provider, token: str) -> dict[str, Any]:
    """What the log says about a token."""
    answer: Answer = op.ask(
        "POST", "/oidc/introspect", body=f"token={token}".encode(), admin=True,
        content_type="application/x-www-form-urlencoded",
    )  # fmt: skip
    assert answer.status == 200, answer
    value: dict[str, Any] = answer.json()
    return value


def test_a_part_of_the_callers_has_moved(
    serve_moving: Callable[[int], Provider],
    subtests: pytest.Subtests,
) -> None:
    """docs/leave-hs256.md: each caller sees one algorithm, minted and as a client; both kinds of token verify, and introspection takes both."""
    op = serve_moving(50)
    seen: dict[str, set[str]] = {"api": set(), BILLING: set()}
    for _ in range(24):
        session = op.app.session("ada")
        of_this: set[str] = set()
        for audience in (BILLING, BILLING, "api"):
            token = mint(op, session["token"], audience=audience).json()["token"]
            alg = header_alg(token)
            verified(op, token, audience, alg)
            assert introspected(op, token)["active"] is True
            seen[audience].add(alg)
            of_this.add(alg.replace("HS256", "RS256"))
        assert len(of_this) == 1
    with subtests.test("some have moved, and some have not"):
        assert seen == {"api": {"HS256", "ES256"}, BILLING: {"RS256", "ES256"}}
    with subtests.test("machines, by their client"):
        algs = {}
        for machine in MACHINES:
            rp = op.rp(machine["client_id"])
            form = {"grant_type": "client_credentials", "resource": BILLING}
            two = [rp.post("/oidc/token", form).json()["access_token"] for _ in range(2)]
            (algs[machine["client_id"]],) = {header_alg(token) for token in two}
            assert all(introspected(op, token)["active"] for token in two)
        assert set(algs.values()) == {"RS256", "ES256"}
    policy = op.house.settings.audiences.tables[BILLING]
    with subtests.test("a grant, by the session that it came from"):
        for number in range(4):
            signed = op.sign_in(
                client_id="wiki", user=f"user-{number}", scope="openid offline_access", prompt="consent", resource=BILLING
            )  # fmt: skip
            again = op.rp("wiki").refresh(signed.tokens["refresh_token"])
            two = [signed.access_token, again.json()["access_token"]]
            assert {header_alg(token) for token in two} == {policy.alg_for(signed.claims["sid"])}
            assert introspected(op, two[1])["active"] is True
    with subtests.test("ready, with both keys"):
        assert op.ask("GET", "/readyz").json()["keys"] == "ok"
    with subtests.test("a forgery is none"):
        claims = unverified_claims(mint(op, op.app.session("bob")["token"], audience="api").json()["token"])
        forged = pyjwt.encode(claims | {"sub": "eve"}, OLD, "HS256")
        assert introspected(op, forged) == {"active": False}
        foreign = pyjwt.encode(claims | {"aud": BILLING}, SECRET, "HS256")  # by no algorithm of its audience
        assert introspected(op, foreign) == {"active": False}


def test_nobody_or_everybody_has_moved(
    serve_moving: Callable[[int], Provider],
    subtests: pytest.Subtests,
) -> None:
    """docs/leave-hs256.md: at 0 the old algorithm signs and tokens of the new one are taken; at 100 the other way round."""
    for percent, signs in ((0, "HS256"), (100, "ES256")):
        with subtests.test(percent=percent):
            op = serve_moving(percent)
            sessions = [op.app.session("ada") for _ in range(8)]
            tokens = [mint(op, each["token"], audience="api").json()["token"] for each in sessions]
            assert {header_alg(token) for token in tokens} == {signs}
            if percent:
                claims = unverified_claims(tokens[0]) | {"jti": "x"}
                assert introspected(op, pyjwt.encode(claims, SECRET, "HS256"))["active"] is True
            assert any(key["alg"] == "ES256" for key in op.ask("GET", "/oidc/jwks").json()["keys"])


def started(environ: dict[str, str], now: int, log: io.StringIO) -> House:
    """A process that starts at a time, with what it keeps of starts, and serves at that time."""
    prepared = prepare(environ, clock=lambda: float(now))
    clock = Clock(now)
    return House(
        create_app(prepared.settings, prepared.store, prepared.keyring, clock), prepared.settings, clock, log
    )


def test_introspection_takes_the_last_tokens_of_the_old_algorithm(
    tmp_path: Path, log: io.StringIO, subtests: pytest.Subtests
) -> None:
    """docs/leave-hs256.md: where `alg` changed in a hurry: as long as one may live, and none that ends later than that."""
    now = int(time.time())
    environ = {
        "PYLON_DATA_DIR": str(tmp_path / "data"), "PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_OIDC_ISSUER": "https://id.example.com", "PYLON_DEV_MODE": "0", **KEYS,
    }  # fmt: skip
    table = '[audience.api]\nlifetime_s = 600\nalg = "%s"\n'
    files = {}
    for alg in ("HS256", "ES256"):
        (tmp_path / alg).mkdir()
        files[alg] = written(tmp_path / alg, table % alg)
    before = started(environ | {"PYLON_POLICIES": files["HS256"]}, now, log)
    session = before.ask(
        "POST", "/api/auth/session", json={"user_id": "ada"}, admin=True, host="id.example.com"
    )
    token = before.ask(
        "POST",
        "/api/auth/jwt",
        json={"audience": "api"},
        token=session.json()["token"],
        host="id.example.com",
    ).json()["token"]
    after = started(environ | {"PYLON_POLICIES": files["ES256"]}, now + 100, log)
    forged = pyjwt.encode(unverified_claims(token) | {"exp": now + 5000}, SECRET, "HS256")
    for name, house, shown, active in (
        ("one that lives", after, token, True),
        ("one that would live too long", after, forged, False),
        ("later", started(environ | {"PYLON_POLICIES": files["ES256"]}, now + 90_000, log), forged, False),
    ):
        with subtests.test(name):
            answer = house.ask(
                "POST", "/oidc/introspect", body=f"token={shown}".encode(), admin=True, host="id.example.com",
                content_type="application/x-www-form-urlencoded",
            )  # fmt: skip
            assert answer.json()["active"] is active


# --- secrets that change ---


def test_the_secrets_of_before_are_still_taken(
    serve_provider: ServeProvider, subtests: pytest.Subtests
) -> None:
    """docs/settings.md: the previous admin token, trusted-mint secret and HS256 secret are taken where they are checked, and sign nothing."""
    both = {
        "PYLON_JWT_SECRET_PREVIOUS": OLD,
        "PYLON_ADMIN_TOKEN_PREVIOUS": ADMIN[::-1],
        "PYLON_TRUSTED_SECRET": TRUSTED,
        "PYLON_TRUSTED_SECRET_PREVIOUS": TRUSTED[::-1],
        "PYLON_JWT_AUDIENCE": "api",
    }
    body = b'{"user_id": "ada"}'
    for name, extra, taken in (("with them", both, True), ("without", {}, False)):
        settings = {"PYLON_TRUSTED_SECRET": TRUSTED, "PYLON_JWT_AUDIENCE": "api"} | extra
        op = serve_provider([], **settings)
        stamp = str(int(op.clock()))
        with subtests.test(f"admin, {name}"):
            for token, opens in ((ADMIN, True), (ADMIN[::-1], taken), (OLD, False), ("", False)):
                begun = op.ask(
                    "POST", "/api/auth/session", json={"user_id": "ada"},
                    headers={"Authorization": f"Bearer {token}"},
                )  # fmt: skip
                assert begun.status == (201 if opens else 403)
        with subtests.test(f"trusted mint, {name}"):
            for key, opens in ((TRUSTED, True), (TRUSTED[::-1], taken), (OLD, False)):
                answer = trusted_mint(op.house, body, timestamp=stamp, signature=mac(stamp, body, key=key))
                assert answer.status == (201 if opens else 401)
                if opens:
                    again = trusted_mint(op.house, body, timestamp=stamp, signature=mac(stamp, body, key=key))
                    refused(again, 401, "REPLAYED")
        with subtests.test(f"introspection, {name}"):
            token = mint(op, op.app.session("ada")["token"]).json()["token"]
            claims = pyjwt.decode(
                token, SECRET, ["HS256"], audience="api", options={"verify_iat": False, "verify_exp": False}
            )
            for secret, active in ((SECRET, True), (OLD, taken), (TRUSTED, False)):
                assert introspected(op, pyjwt.encode(claims, secret, "HS256"))["active"] is active
        with subtests.test(f"no log has them, {name}"):
            told = json.dumps(op.house.requests_logged)
            assert not any(secret in told for secret in (OLD, ADMIN[::-1], TRUSTED[::-1]))


def test_a_secret_of_before_without_a_current_one_opens_nothing(
    serve_provider: ServeProvider, subtests: pytest.Subtests
) -> None:
    """docs/leave-hs256.md: who unsets the admin token closes the admin API; the start says that the other has no effect."""
    names = ("PYLON_ADMIN_TOKEN", "PYLON_TRUSTED_SECRET", "PYLON_JWT_SECRET")
    previous: dict[str, str | None] = {
        f"{name}_PREVIOUS": f"{number}{OLD}" for number, name in enumerate(names)
    }
    op = serve_provider([], **dict.fromkeys(names), **previous)
    with subtests.test("admin"):
        answer = op.ask(
            "POST", "/api/auth/session", json={"user_id": "ada"}, headers={"Authorization": f"Bearer 0{OLD}"}
        )
        refused(answer, 403, "FORBIDDEN")
    with subtests.test("trusted mint"):
        refused(trusted_mint(op.house, signature=mac("1", b"{}", key=f"1{OLD}")), 404, "NOT_FOUND")
    for name in names:
        with subtests.test(name):
            warnings = read_settings({f"{name}_PREVIOUS": OLD}).warnings
            assert f"{name}_PREVIOUS has no effect without {name}" in warnings


def test_secrets_of_before_are_checked_as_the_current_ones(subtests: pytest.Subtests) -> None:
    """docs/leave-hs256.md: weak, quoted, or the same as another: a fault that shows no secret."""
    for name in ("PYLON_ADMIN_TOKEN", "PYLON_TRUSTED_SECRET", "PYLON_JWT_SECRET"):
        for what, value, words in (
            ("weak", "changeme-changeme-changeme-changeme", ""),
            ("too short", "tooshort", ""),
            ("quoted", f'"{OLD}"', "quotes"),
            ("the same", SECRET, f"is the same secret as {name}; unset it"),
        ):
            with subtests.test(name, what=what):
                (fault,) = read_settings({name: SECRET, f"{name}_PREVIOUS": value}).faults
                assert fault.name == f"{name}_PREVIOUS"
                assert words in fault.text
                assert value not in str(fault)
    with subtests.test("that of another use"):
        (fault,) = read_settings({"PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN_PREVIOUS": SECRET}).faults
        assert "is the same secret as PYLON_JWT_SECRET; write another" in fault.text
