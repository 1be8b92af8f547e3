"""docs/audiences.md, as its reader runs it: three APIs with tokens of their own, a dashboard, a nightly job.

Spec: RFC 8707; RFC 9068; RFC 9470 §3
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.docs.recipes import APIS, RECIPES
from tests.flows.test_js_clients import run_node
from tests.flows.walking import LEGACY, PAYMENTS, REPORTS, Company, check_program, unverified


@pytest.fixture(scope="module")
def company() -> Iterator[Company]:
    """The company of the page."""
    with Company() as running:
        yield running


def test_the_page_looks_before_it_starts(company: Company) -> None:
    """The file is sound, its cases come out as it says, and the job's token is shown."""
    shown = company.look()
    assert "The policies are sound: 3 audiences." in shown
    assert "2 cases, 0 differ." in shown
    token = f"A token for {REPORTS} by client_credentials.\nIt is signed by ES256, has typ at+jwt"
    assert token in shown


def test_the_walk_goes_as_the_page_says(
    company: Company, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """Minted, through the code flow, by the job, by the gateway: each token is its audience's, and a password does not pay."""
    with subtests.test("a password is not enough for the payments"):
        session = company.session(acr="pwd")
        error = company.ask("mint.sh", SESSION=session, AUDIENCE=PAYMENTS)["error"]
        assert (error["code"], error["rule"]) == ("POLICY_REFUSED", "require.acr")
        assert error["step_up"] == {"acr_values": ["mfa"], "max_age": 3600}
        assert error.keys() == {"code", "rule", "step_up", "message", "request_id"}
    with subtests.test("an hour later"):
        session = company.session(acr="mfa", auth_time=int(time.time()) - 3601)
        error = company.ask("mint.sh", SESSION=session, AUDIENCE=PAYMENTS)["error"]
        assert error["rule"] == "require.max_session_age_s"
    with subtests.test("the dashboard"):
        shown, tokens = company.signed_in()
        assert (shown["acr_values"], shown["max_age"]) == ("mfa", 3600)
        claims = unverified(tokens["access_token"])
        assert (claims["aud"], claims["scope"], claims["groups"]) == (
            REPORTS,
            "reports:read reports:write",
            ["admin", "dev"],
        )
        second = company.ask("refresh.sh", REFRESH_TOKEN=tokens["refresh_token"])
        claims = unverified(second["access_token"])
        assert (claims["aud"], claims["scope"], claims["exp"] - claims["iat"]) == (PAYMENTS, "pay", 60)
        assert (claims["acr"], claims["tenant_id"]) == ("mfa", "acme")
        assert "groups" not in claims
    with subtests.test("the nightly job"):
        claims = unverified(company.ask("nightly.sh")["access_token"])
        assert (claims["sub"], claims["aud"], claims["scope"]) == ("nightly", REPORTS, "reports:read")
        assert "groups" not in claims
    with subtests.test("the gateway"):
        answer = company.ask("exchange.sh", TOKEN=tokens["access_token"])
        narrow, wide = unverified(answer["access_token"]), unverified(tokens["access_token"])
        assert (narrow["sub"], narrow["client_id"], narrow["act"]) == ("ada", "gateway", {"sub": "gateway"})
        assert (answer["scope"], narrow["scope"], narrow["sid"]) == (
            "reports:read",
            "reports:read",
            wide["sid"],
        )
        assert narrow["exp"] <= wide["exp"]
        assert company.ask("exchange.sh", TOKEN=second["access_token"])["error"] == "invalid_request"
    with subtests.test("the gateway gets no more than it may have"):
        wider = replace(RECIPES["exchange.sh"], code=RECIPES["exchange.sh"].code.replace(":read", ":write"))
        monkeypatch.setitem(RECIPES, "exchange.sh", wider)
        assert company.ask("exchange.sh", TOKEN=tokens["access_token"])["error"] == "invalid_scope"
    with subtests.test("the old service"):
        assert unverified(company.minted(LEGACY))["roles"] == ["admin", "dev"]


@pytest.mark.parametrize("recipe", APIS)
def test_a_program_of_the_page_takes_its_tokens_and_no_others(company: Company, recipe: str) -> None:
    """Each verifies by a stock library what its API may have, and refuses all that is like it."""
    assert check_program(company, recipe) == {}


def test_a_program_that_checks_less_is_found_out(
    company: Company, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """Each line of a program that checks something is needed: without it, a token passes that must not."""
    whole = RECIPES["api.mjs"]
    cases = {
        'typ: "at+jwt",': "another typ",
        "issuer: ISSUER,": "another iss",
        "audience: AUDIENCE,": "no aud",
        'requiredClaims: ["exp", "iat", "sub", "jti"],': "no exp",
    }
    for line, name in cases.items():
        with subtests.test(line):
            assert line in whole.code
            monkeypatch.setitem(RECIPES, "api.mjs", replace(whole, code=whole.code.replace(line, "")))
            wrong = check_program(company, "api.mjs")
            assert set(wrong) == {REPORTS, PAYMENTS}
            assert name in {told.partition(":")[0] for told in wrong[REPORTS]}


def test_validators_of_rfc_9068_take_access_tokens_alone(company: Company, subtests: pytest.Subtests) -> None:
    """RFC 9068 §4: they take what a user's client and a job get for this API, and neither an ID token nor a minted one."""
    _, tokens = company.signed_in()
    good = {
        "code": tokens["access_token"],
        "job": company.ask("nightly.sh")["access_token"],
        "exchanged": company.ask("exchange.sh", TOKEN=tokens["access_token"])["access_token"],
    }
    minted = {"a minted token of the same audience": company.minted(REPORTS)}
    bad = company.of_another_kind(REPORTS, good["code"], tokens["id_token"]) | minted
    done = run_node("validators.mjs", company.issuer, REPORTS, stdin=json.dumps(good | bad))
    assert done.returncode == 0, done.stderr
    for library, taken in json.loads(done.stdout).items():
        with subtests.test(library):
            assert taken == [*good]
