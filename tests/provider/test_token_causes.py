"""A refusal at the token endpoint says in the log which rule refused, and to the caller no more than RFC 6749 §5.2 has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest

from tests.provider.driver import CALLBACK, Provider, Request
from tests.support.gunicorn import Answer

OFFLINE = "openid offline_access"
NOTHING: Mapping[str, str | None] = MappingProxyType({})
Ask = Callable[[Provider], Answer]


def _code(op: Provider) -> tuple[Request, str]:
    request = op.rp().request(scope=OFFLINE)
    return request, str(op.authorize(op.browser(), request)["code"])


def _by(
    client_id: str = "c-basic", wait_s: int = 0, twice: bool = False, form: Mapping[str, str | None] = NOTHING
) -> Ask:
    """The exchange of a good code, with one thing wrong."""

    def ask(op: Provider) -> Answer:
        request, code = _code(op)
        op.clock.advance(wait_s)
        if twice:
            assert op.rp().redeem(request, code).status == 200
        shown = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": request.code_verifier,
        }
        given = {name: value for name, value in {**shown, **form}.items() if value is not None}
        return op.rp(client_id).post("/oidc/token", given)

    return ask


def _refresh(client_id: str = "c-basic", *, turns: int = 0, wait_s: int = 0, **more: str) -> Ask:
    def ask(op: Provider) -> Answer:
        shown = token = op.sign_in(scope=OFFLINE).tokens["refresh_token"]
        for _ in range(turns):
            token = op.rp().refresh(token).json()["refresh_token"]
        op.clock.advance(wait_s)
        return op.rp(client_id).refresh(shown, **more)

    return ask


def _damaged(op: Provider) -> Answer:
    token = op.sign_in(scope=OFFLINE).tokens["refresh_token"]
    return op.rp().refresh(token[:-1] + ("A" if token[-1] != "A" else "B"))


def _wrong_secret(op: Provider) -> Answer:
    request, code = _code(op)
    return op.rp(secret="x" * 40).redeem(request, code)


CASES: dict[str, tuple[Ask, str]] = {
    "code_malformed": (_by(form={"code": "no-code-of-ours"}), "invalid_grant"),
    "code_of_another_client": (_by("c-post"), "invalid_grant"),
    "redirect_uri_mismatch": (_by(form={"redirect_uri": CALLBACK + "/other"}), "invalid_grant"),
    "verifier_mismatch": (_by(form={"code_verifier": "v" * 43}), "invalid_grant"),
    "code_unknown": (_by(wait_s=61), "invalid_grant"),  # its grant has ended with it
    "code_reused": (_by(twice=True), "invalid_grant"),
    "code_missing": (_by(form={"code": None}), "invalid_request"),
    "grant_type_missing": (_by(form={"grant_type": None}), "invalid_request"),
    "grant_type_unknown": (_by(form={"grant_type": "password"}), "unsupported_grant_type"),
    "client_secret_mismatch": (_wrong_secret, "invalid_client"),
    "client_unknown": (_by("c-nobody"), "invalid_client"),
    "refresh_token_malformed": (_damaged, "invalid_grant"),
    "refresh_token_of_another_client": (_refresh("c-post"), "invalid_grant"),
    "refresh_token_reused": (_refresh(turns=2), "invalid_grant"),
    "refresh_token_expired": (_refresh(wait_s=30 * 86_400), "invalid_grant"),
    "scope_not_granted": (_refresh(scope="openid phone"), "invalid_scope"),
}


def test_each_refusal_has_a_cause_of_its_own(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 6749 §5.2: one constant word a rule in the log; to the caller every `invalid_grant` is the same."""
    said: dict[str, set[bytes]] = {}
    for cause, (ask, error) in CASES.items():
        answer, line = ask(op), op.house.requests_logged[-1]
        with subtests.test(cause):
            assert (answer.json()["error"], line["error"], line["cause"]) == (error, error, cause)
            assert re.fullmatch("[a-z]+(_[a-z]+)*", line["cause"])
        said.setdefault(error, set()).add(answer.body)
    assert len(said["invalid_grant"]) == 1 and len(said["invalid_client"]) == 1


@pytest.mark.parametrize("event", ["code_reused", "refresh_token_reused"])
def test_theft_is_a_warning_of_its_own(op: Provider, event: str) -> None:
    """RFC 9700 §4.14.2: the log shows the operator what was stolen, and whose it was; the grant has ended."""
    ask, _ = CASES[event]
    ask(op)
    (line,) = [line for line in op.house.lines if line["event"] == event]
    assert line["level"] == "warning"
    assert (line["client_id"], line["user"]) == ("c-basic", "ada") and line["sid"] and line["request_id"]
    assert not op.app.grants()


def test_no_part_of_a_secret_gets_into_the_log(op: Provider) -> None:
    """RFC 6819 §5.1.4: no part of eight characters of a code, a token or a verifier is logged, whatever is refused."""
    shown: list[str] = []
    request, code = _code(op)
    signed = op.rp().redeem(request, code).json()
    again = op.rp().refresh(signed["refresh_token"]).json()
    shown += [code, str(request.code_verifier)]
    shown += [
        tokens[name] for tokens in (signed, again) for name in ("access_token", "refresh_token", "id_token")
    ]
    for handle in shown:
        for broken in (handle, handle[:-1], handle[: len(handle) // 2], handle + "A"):
            op.rp().refresh(broken)
            op.rp().redeem(request, broken)
            op.rp().userinfo(broken)
            op.rp().introspect(broken)
    logged = op.house.log.getvalue()
    for handle in shown:
        # The grant's id is no secret; everything behind it is.
        secret = handle.partition(".")[2] if not handle.startswith("eyJ") else handle.rpartition(".")[2]
        for first in range(0, len(secret) - 8, 4):
            assert secret[first : first + 8] not in logged
