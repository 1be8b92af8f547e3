"""Somebody else is faster: between what a request reads and what it stores, another tab, browser or operator acts.

The request that loses reads and decides again; nothing happens that was not stored. docs/security.md has the promises.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from service.storage.interface import Store
from tests.provider.browser import Browser, Landing, query_of
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, LOGIN_URL, OTHER_CALLBACK, Provider

CONSENT_URL = "https://app.example.com/consent"
DATABASE_CLIENT = {"client_id": "c-db", "redirect_uris": [OTHER_CALLBACK], "scope": "openid email"}


class Interrupted:
    """A store on which something else happens first, once, when the next change is to be stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.first: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name not in {"put", "swap", "take", "change"}:
            return verb

        def interrupted(*args: Any, **given: Any) -> Any:
            first, self.first = self.first, None
            if first is not None:
                first()
            return verb(*args, **given)

        return interrupted


class Stage:
    """A provider, and what happens in the middle of its next change."""

    def __init__(self, serve_provider: ServeProvider, **environ: Any) -> None:
        self._stores: list[Interrupted] = []
        self.op: Provider = serve_provider([*CLIENTS], store_of=self._wrapped, **environ)

    def _wrapped(self, store: Store) -> Any:
        self._stores.append(Interrupted(store))
        return self._stores[-1]

    def first(self, act: Callable[[], Any]) -> list[Any]:
        """Let this happen in the middle of the next change; what came of it."""
        seen: list[Any] = []
        self._stores[0].first = lambda: seen.append(act())
        return seen

    def asked(self, client_id: str = "c-third", **given: Any) -> tuple[Browser, Landing]:
        """A browser of Ada's on the consent page."""
        browser = self.op.browser()
        self.op.app.sign_in(browser, "ada")
        return browser, browser.go(self.op.rp(client_id, **given).request().url)


@pytest.fixture
def stage(serve_provider: ServeProvider) -> Stage:
    """With the built-in consent page."""
    return Stage(serve_provider)


def _code(landing: Landing) -> str | None:
    return query_of(landing.url).get("code")


def test_a_sign_out_before_the_code_is_stored(stage: Stage) -> None:
    """RFC 9700 §4.7: no code without a live session: the user is sent to sign in, and may then continue."""
    op, browser = stage.op, stage.op.browser()
    op.app.sign_in(browser, "ada")
    seen = stage.first(lambda: op.app.call("DELETE", "/api/auth/users/ada/sessions").status)
    landing = browser.go(op.rp().request().url)
    assert seen == [200] and landing.is_at(LOGIN_URL) and not op.app.grants("ada")
    assert _code(op.app.by_backend(browser, landing, "ada"))


def test_another_tab_shows_the_form_again(stage: Stage) -> None:
    """docs/security.md: the form that was shown last counts, also where it came while the first was answered."""
    browser, page = stage.asked()
    seen = stage.first(lambda: browser.go(page.action))
    assert browser.submit(page, decision="allow").is_page(403)
    assert not stage.op.app.grants("ada")
    assert _code(browser.submit(seen[0], decision="allow"))


@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_a_double_click(stage: Stage, decision: str) -> None:
    """RFC 9700 §4.7: both presses get one answer, and one grant comes of them at most: whichever button was the faster."""
    browser, page = stage.asked()
    seen = stage.first(lambda: browser.submit(page, decision=decision))
    landing = browser.submit(page, decision="allow")
    assert landing.url == seen[0].url and landing.is_at(OTHER_CALLBACK)
    assert len(stage.op.app.grants("ada")) == (1 if decision == "allow" else 0)


def test_another_user_signs_in_and_is_asked(stage: Stage) -> None:
    """docs/security.md: the yes of the user who was asked before counts for no one."""
    browser, page = stage.asked()
    op = stage.op

    def bob() -> Landing:
        op.app.sign_in(browser, "bob", auth_time=int(op.clock()) + 1)
        return browser.go(page.action)

    seen = stage.first(bob)
    assert browser.submit(page, decision="allow").is_page(403)
    assert "bob" in seen[0].text and not op.app.grants("ada") and not op.app.grants("bob")
    assert _code(browser.submit(seen[0], decision="allow"))
    assert op.app.grants("bob") and not op.app.grants("ada")


@pytest.mark.parametrize("change", ["shrinks", "goes"])
def test_the_client_changes_before_the_code_is_stored(stage: Stage, change: str) -> None:
    """RFC 9700 §4.7: what is granted is what the client may have when it is stored; one that is gone gets nothing."""
    op = stage.op
    secret = op.app.call("POST", "/api/oidc/clients", DATABASE_CLIENT).json()["client_secret"]
    rp = op.rp("c-db", secret=secret, redirect_uri=OTHER_CALLBACK)
    browser, request = op.browser(), rp.request(scope="openid email")
    op.app.sign_in(browser, "ada")
    page = browser.go(request.url)
    body = {name: value for name, value in DATABASE_CLIENT.items() if name != "client_id"} | {
        "scope": "openid"
    }
    if change == "shrinks":
        seen = stage.first(lambda: op.app.call("PUT", "/api/oidc/clients/c-db", body).status)
    else:
        seen = stage.first(lambda: op.app.call("DELETE", "/api/oidc/clients/c-db").status)
    landing = browser.submit(page, decision="allow")
    if change == "goes":
        assert seen == [204] and landing.is_page(400) and not op.app.grants("ada")
        return
    assert seen == [200]
    assert rp.redeem(request, op.answered(request, landing)["code"]).json()["scope"] == "openid"


def test_the_same_verifier_in_another_tab(stage: Stage) -> None:
    """docs/security.md: it is good once: one tab gets the code, the other a page; one session of the browser's own, one grant."""
    op, browser = stage.op, stage.op.browser()
    landing = browser.go(op.rp().request().url)
    redirect_to = op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})
    seen = stage.first(lambda: browser.go(redirect_to))
    assert browser.go(redirect_to).is_page(400)
    assert seen[0].is_at(CALLBACK) and _code(seen[0]) and len(op.app.grants("ada")) == 1


def test_a_lost_race_spends_no_verifier(stage: Stage) -> None:
    """RFC 9700 §4.7: another tab of the same sign-in moves on: what was reported still counts, when all is read again."""
    op, browser = stage.op, stage.op.browser()
    landing = browser.go(op.rp().request().url)
    redirect_to = op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})
    seen = stage.first(lambda: browser.go(query_of(landing.url)["return_to"]))
    assert _code(browser.go(redirect_to)) and seen[0].is_at(LOGIN_URL)


def test_a_report_whose_session_ends_signs_nobody_in(stage: Stage) -> None:
    """docs/security.md: the browser gets neither a session of its own nor a code."""
    op, browser = stage.op, stage.op.browser()
    landing = browser.go(op.rp().request().url)
    redirect_to = op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})
    stage.first(lambda: op.app.call("DELETE", "/api/auth/users/ada/sessions"))
    assert browser.go(redirect_to).is_at(LOGIN_URL)
    assert not browser.cookie_names("__Host-pylon_provider") and not op.app.grants("ada")


def test_two_tabs_at_the_sign_in_page_are_two_tries(stage: Stage) -> None:
    """RFC 9700 §4.7: each counts, also where both came at once: after them the client gets the error."""
    op, browser = stage.op, stage.op.browser()
    request = op.rp().request()
    return_to = query_of(browser.go(request.url).url)["return_to"]
    seen = stage.first(lambda: browser.go(return_to))
    assert op.answered(request, browser.go(return_to))["error"] == "login_required"
    assert seen[0].is_at(LOGIN_URL)
    assert browser.go(return_to).is_page(400)  # and back: it is over


def test_an_apps_yes_while_another_user_is_asked(serve_provider: ServeProvider) -> None:
    """docs/security.md: reported for one, brought back while another is asked in the same browser: it counts for nobody."""
    stage = Stage(serve_provider, PYLON_CONSENT_URL=CONSENT_URL)
    browser, landing = stage.asked()
    op = stage.op
    redirect_to = op.app.report(op.app.interaction(landing), "consent", {})

    def bob() -> Landing:
        op.app.sign_in(browser, "bob", auth_time=int(op.clock()) + 1)
        return browser.go(query_of(landing.url)["return_to"])

    seen = stage.first(bob)
    assert browser.go(redirect_to).is_at(CONSENT_URL) and seen[0].is_at(CONSENT_URL)
    assert not op.app.grants("ada") and not op.app.grants("bob")


def test_two_browsers_are_strangers(stage: Stage) -> None:
    """RFC 9700 §4.7: what one of them does in the middle of the other's request changes nothing of it."""
    op = stage.op
    (one, page), (other, others_page) = stage.asked(), stage.asked()
    seen = stage.first(lambda: other.submit(others_page, decision="deny"))
    assert _code(one.submit(page, decision="allow"))
    assert query_of(seen[0].url)["error"] == "access_denied" and len(op.app.grants("ada")) == 1


def test_members_of_a_later_version_stay(stage: Stage) -> None:
    """docs/security.md: the state is stored by names: one that this version does not know is kept, one that the row lacks is as at first."""
    browser, page = stage.asked()
    path = stage.op.house.settings.data_dir / "pylon.db"

    def body(change: Callable[[dict[str, Any]], None] = lambda known: None) -> dict[str, Any]:
        with closing(sqlite3.connect(path)) as database, database:
            ((text,),) = database.execute("SELECT body FROM interaction").fetchall()
            known: dict[str, Any] = json.loads(text)
            change(known)
            database.execute("UPDATE interaction SET body = ?", [json.dumps(known)])
        return known

    def later(known: dict[str, Any]) -> None:
        known["later"] = 1
        known["state"] |= {"later": [2]}
        del known["state"]["signed_in_sid"]

    body(later)
    page = browser.go(page.action)
    kept = body()
    assert kept["later"] == 1 and kept["state"]["later"] == [2] and kept["state"]["step"] == "consent"
    assert _code(browser.submit(page, decision="allow"))
