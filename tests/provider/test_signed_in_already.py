"""The recipe of docs/sign-in.md for users who are signed in to the app already, followed to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.docs.recipes import RECIPES
from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider

HR = '{"hr": {"claims": ["department"], "description": "see your department"}}'


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    """A provider with the scope that the page shows."""
    return serve_provider(PYLON_OIDC_SCOPES=HR)


def _report(
    op: Provider, signed_in_s_ago: int | None, **parameters: str
) -> tuple[str | None, dict[str, str]]:
    """What the recipe says to report for this request; and the answer that the client gets for it."""
    names: dict[str, Any] = {}
    exec(compile(RECIPES["signed-in-already.py"].code, "signed-in-already.py", "exec"), names)
    names["time"] = type("Time", (), {"time": op.clock})
    browser, request = op.browser(), op.rp().request(**parameters)
    landing = browser.go(request.url)
    interaction = op.app.interaction(landing)
    asked = op.app.call("GET", f"/api/oidc/interactions/{interaction}").json()
    user = None
    if signed_in_s_ago is not None:
        user = {
            "id": "ada", "name": "Ada Byron", "email": "ada@example.com", "roles": ["dev"], "organisation": "acme",
            "department": "R&D", "signed_in_at": int(op.clock()) - signed_in_s_ago,
        }  # fmt: skip
    body = names["report_of"](asked, user)
    if body is None:
        return None, {}
    landing = op.finish(browser, browser.go(op.app.report(interaction, "login", body)))
    answer = op.answered(request, landing)
    tokens = op.rp().redeem(request, answer["code"]).json()
    return body["user_id"], op.rp().verified(tokens["id_token"])


@pytest.mark.parametrize("parameters", [{}, {"max_age": "101"}, {"prompt": "consent"}])
def test_a_user_of_the_app_is_reported_without_a_question(op: Provider, parameters: dict[str, str]) -> None:
    """docs/sign-in.md: their real `auth_time` is sent, and roles, tenant and attributes arrive by their scopes."""
    scope = "openid profile email roles groups hr"
    user, claims = _report(op, 100, scope=scope, **parameters)
    assert (user, claims["auth_time"], claims["department"]) == ("ada", int(op.clock()) - 100, "R&D")
    assert (claims["roles"], claims["groups"], claims["tenant_id"]) == (["dev"], ["dev"], "acme")


@pytest.mark.parametrize(
    "parameters", [{"prompt": "login"}, {"prompt": "select_account consent"}, {"max_age": "100"}]
)
def test_a_request_for_a_new_sign_in_asks(op: Provider, parameters: dict[str, str]) -> None:
    """docs/sign-in.md: the page is shown where the request wants a new sign-in, or one that is not so old."""
    assert _report(op, 100, **parameters) == (None, {})
    assert _report(op, None) == (None, {})
