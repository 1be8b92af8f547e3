"""The ordered checks are data: each one, taken out, lets something through that only it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest

from service.protocol import authorize as rules
from tests.provider.browser import Landing
from tests.provider.driver import CALLBACK, ISSUER, Provider, challenge_of
from tests.support.cases import each_of


@dataclass(frozen=True)
class Case:
    """A request that a check must refuse: a good one of `client`, with changes, and one parameter repeated.

    Attributes:
        told: The error by redirect, or what the log says of a page.
    """

    told: str
    changes: dict[str, str | None] = field(default_factory=dict)
    client: str = "c-basic"
    repeated: str | None = None


#: Check -> requests that it must refuse, and what is said.
CASES: dict[str, list[Case]] = {
    "check_client_id": [
        Case("does not say which service", {"client_id": None}),
        Case("does not say which service", {"client_id": ""}),
        Case("does not say which service", repeated="client_id"),
    ],
    "check_client_known": [
        Case("client_id is not registered", {"client_id": "nobody"}),
        Case("client_id is not registered", {"client_id": "C-BASIC"}),
        Case("client_id is not registered", {"client_id": "c-basic\0"}),
    ],
    "check_redirect_uri_given": [
        Case("does not say where", {"redirect_uri": None}),
        Case("does not say where", {"redirect_uri": ""}),
        Case("does not say where", repeated="redirect_uri"),
    ],
    "check_redirect_uri_registered": [
        Case("differs from the nearest", {"redirect_uri": "https://evil.example/"}),
        Case("differs from the nearest", {"redirect_uri": f"{CALLBACK}?x=1"}),
    ],
    "check_no_repeats": [
        Case("invalid_request", repeated="scope"),
        Case("invalid_request", repeated="state"),
        Case("invalid_request", repeated="code_challenge"),
        Case("invalid_request", {"unknown": "x"}, repeated="unknown"),
    ],
    "check_size": [Case("invalid_request", {"login_hint": "x" * 9_000})],
    "check_no_request_object": [Case("request_not_supported", {"request": "e30.e30."})],
    "check_no_request_uri": [Case("request_uri_not_supported", {"request_uri": "https://rp.example.org/ro"})],
    "check_no_registration": [Case("registration_not_supported", {"registration": "{}"})],
    "check_response_type": [
        Case("invalid_request", {"response_type": None}),
        Case("unsupported_response_type", {"response_type": "code token"}),
    ],
    "check_response_mode": [Case("invalid_request", {"response_mode": "fragment"})],
    "check_grant_type": [Case("unauthorized_client", client="c-no-code")],
    "check_resource": [
        Case("invalid_target", {"resource": "https://api.example"}),
        Case("invalid_target", {"resource": f"{ISSUER} https://api.example"}),
    ],
    "check_scope": [
        Case("invalid_scope", {"scope": "nothing-known"}),
        Case("invalid_scope", {"scope": None}),
        Case("invalid_scope", {"scope": "phone address"}, client="c-narrow"),
    ],
    "check_prompt": [
        Case("invalid_request", {"prompt": "create"}),
        Case("invalid_request", {"prompt": "consent none"}),
    ],
    "check_max_age": [
        Case("invalid_request", {"max_age": value}) for value in ("-1", "1.5", "+1", "x", "٣", "99999999999")
    ],
    "check_pkce_method": [
        Case("invalid_request", {"code_challenge_method": "plain"}),
        Case("invalid_request", {"code_challenge_method": None}),
        Case("invalid_request", {"code_challenge_method": "s256"}),
    ],
    "check_pkce_challenge": [
        Case("invalid_request", {"code_challenge": "short"}),
        Case("invalid_request", {"code_challenge": "x" * 44}),
        Case("invalid_request", {"code_challenge": challenge_of("v")[:-1] + "="}),
        Case("invalid_request", {"code_challenge": None}, client="c-loose"),
    ],
    "check_pkce_present": [
        Case("invalid_request", {"code_challenge": None, "code_challenge_method": None, "nonce": None}),
        Case("invalid_request", {"code_challenge": None, "code_challenge_method": None}, client="c-public"),
    ],
    "check_claims": [
        Case("invalid_request", {"claims": "[]"}),
        Case("invalid_request", {"claims": '{"id_token":1}'}),
    ],
}
ALL = [(name, case) for name, cases in CASES.items() for case in cases]
BEFORE = {check.__name__ for check in rules.BEFORE_TRUST}


def _send(op: Provider, case: Case) -> Landing:
    parameters = list(op.rp(case.client).request(**case.changes).parameters.items())
    parameters += [pair for pair in parameters if pair[0] == case.repeated]
    return op.browser().go(f"{op.issuer}/oidc/authorize?{urlencode(parameters)}")


def _refusal(op: Provider, case: Case) -> str:
    """Which refusal the request met: the log's words for a page, else error and description, else nothing."""
    lines = len(op.house.lines)
    landing = _send(op, case)
    details = [line["detail"] for line in op.house.lines[lines:] if line["event"] == "refused"]
    if details and landing.is_page(400):
        return str(details[0])
    shown = landing.parameters if landing.is_at(CALLBACK) else {}
    return f"{shown.get('error')}: {shown.get('error_description')}"


def test_every_check_has_a_case() -> None:
    """docs/security.md: every check is needed."""
    assert [check.__name__ for check in rules.BEFORE_TRUST + rules.AFTER_TRUST] == list(CASES)
    assert all(CASES.values())


@pytest.mark.parametrize(("name", "case"), ALL)
def test_a_check_refuses_and_without_it_the_refusal_is_gone(
    op: Provider, monkeypatch: pytest.MonkeyPatch, name: str, case: Case
) -> None:
    """docs/security.md: the check refuses this request; with the check taken out, nothing else says the same."""
    with_it = _refusal(op, case)
    assert case.told in with_it
    part = "BEFORE_TRUST" if name in BEFORE else "AFTER_TRUST"
    kept: list[Callable[[Any], None]] = [check for check in getattr(rules, part) if check.__name__ != name]
    monkeypatch.setattr(rules, part, tuple(kept))
    assert _refusal(op, case) != with_it


@each_of(("name", "case"), ALL)
def test_before_the_cut_it_is_a_page_and_after_it_a_redirect(op: Provider, name: str, case: Case) -> None:
    """An error before the redirect URI is trusted is shown here; after it, it goes back with state and iss (RFC 9700 §4.11.2)."""
    landing = _send(op, case)
    if name in BEFORE:
        assert landing.is_page(400)
        return
    assert landing.is_at(CALLBACK)
    assert landing.parameters["iss"] == op.issuer
    assert ("state" in landing.parameters) is (case.repeated != "state")


@each_of("case", [case for name, case in ALL if name not in BEFORE])
def test_no_later_error_is_told_to_an_untrusted_redirect_uri(op: Provider, case: Case) -> None:
    """docs/security.md: unsupported response types, scopes and all the others are a page while the redirect URI is not registered."""
    wrong = Case(
        case.told, case.changes | {"redirect_uri": "https://evil.example/"}, case.client, case.repeated
    )
    assert _send(op, wrong).is_page(400)


def test_a_repeated_state_is_answered_without_state(op: Provider) -> None:
    """Of two states none is echoed; it is a redirect with invalid_request (RFC 6749 §3.1)."""
    shown = _send(op, Case("", repeated="state")).parameters
    assert shown["error"] == "invalid_request" and "state" not in shown


def test_a_repeated_response_mode_is_answered_by_query(op: Provider) -> None:
    """Of two response modes neither is believed (RFC 6749 §3.1)."""
    landing = _send(op, Case("", {"response_mode": "form_post"}, repeated="response_mode"))
    assert landing.is_at(CALLBACK) and landing.parameters["error"] == "invalid_request"


@each_of("values", [[ISSUER], [ISSUER, f"{ISSUER}/"], ["", ""]])
def test_a_resource_may_come_more_than_once(op: Provider, values: list[str]) -> None:
    """`resource` is the one parameter that may be repeated (RFC 8707 §2)."""
    request = op.rp().request()
    query = urlencode([*request.parameters.items(), *(("resource", value) for value in values)])
    browser = op.browser()
    landing = op.finish(browser, browser.go(f"{op.issuer}/oidc/authorize?{query}"))
    assert "code" in op.answered(request, landing)


def test_an_empty_parameter_counts_as_absent(op: Provider) -> None:
    """Parameters without a value are as if they were left out (RFC 6749 §3.1)."""
    empty: dict[str, str | None] = dict.fromkeys(
        [
            "prompt",
            "max_age",
            "claims",
            "id_token_hint",
            "request",
            "request_uri",
            "response_mode",
            "display",
            "registration",
        ],
        "",
    )
    shown = op.authorize(op.browser(), op.rp().request(**empty))
    assert "code" in shown


@each_of(
    "query",
    [
        "client_id=%FF",
        "client_id=c-basic&state=%ED%A0%80",
        "&".join(f"p{n}=1" for n in range(201)),
        "%00=%00",
        "",
    ],
)
def test_a_malformed_query_is_a_page(op: Provider, query: str) -> None:
    """What is not UTF-8, or too much, is shown here (RFC 6749 Appendix B)."""
    assert op.browser().go(f"{op.issuer}/oidc/authorize?{query}").is_page(400)


#: Check -> the member of a client, or the setting, that an operator can change.
DECIDED_BY = {
    "check_resource": "PYLON_POLICIES",
    "check_client_known": "PYLON_OIDC_CLIENTS",
    "check_redirect_uri_registered": "redirect_uris",
    "check_grant_type": "grant_types",
    "check_scope": "scope",
    "check_pkce_present": "require_pkce",
}


@each_of("name", CASES)
def test_an_operator_finds_client_rule_and_setting(op: Provider, name: str) -> None:
    """docs/errors.md: the log line of a refusal names the rule, the client where it is known, and what decides it."""
    case, before = CASES[name][0], len(op.house.lines)
    landing = _send(op, case)
    (line,) = [line for line in op.house.lines[before:] if line["event"] == "refused"]
    assert (line["rule"], line.get("setting")) == (name.removeprefix("check_"), DECIDED_BY.get(name))
    known = name not in ("check_client_id", "check_client_known")
    assert line.get("client_id") == (case.client if known else None)
    if name in BEFORE:
        assert line["request_id"] in landing.text
        assert DECIDED_BY.get(name, "") in landing.text or name == "check_client_known"
    else:
        assert line["error"] == landing.parameters["error"]
