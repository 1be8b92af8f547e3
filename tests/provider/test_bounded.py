"""What a request without a sign-in leaves behind is bounded: in size, in number an address, and in number in all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from service.records import assertions, unused, waiting
from service.startup import open_store
from service.storage.interface import NEVER
from tests.provider.browser import FORM, query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, LOGIN_URL, OTHER_CALLBACK, SIGNED_OUT, Provider, Request
from tests.provider.registering import register, registered
from tests.provider.test_private_key_jwt import ask, assertion, public
from tests.support.cases import each_of

MOST_BYTES = 8192
STRANGER = "198.51.100.7"
EACH, ALL = 32, 96


def _kept(op: Provider) -> list[tuple[str, str]]:
    """Every row that waits for a browser: its table and its body."""
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        return [
            (table, body)
            for table in ("interaction", "verifier")
            for (body,) in database.execute(f"SELECT body FROM {table}")
        ]


def _post(op: Provider, path: str, form: dict[str, str], address: str | None = None) -> Any:
    """A form from another site: without a cookie, from an address where one is said."""
    environ = {} if address is None else {"REMOTE_ADDR": address}
    return op.ask("POST", path, body=urlencode(form).encode(), content_type=FORM, environ=environ)


def _size(parameters: dict[str, str]) -> int:
    return len(urlencode(parameters, quote_via=quote, safe=""))


def _filled(request: Request, size: int, filling: str = "s") -> dict[str, str]:
    """The parameters of a request whose `state` makes them so large."""
    room = size - _size(request.parameters | {"state": ""})
    each = len(quote(filling, safe=""))
    return request.parameters | {"state": filling * (room // each) + "s" * (room % each)}


# --- the size of one ---


@each_of("filling", ["s", "<", "é", "\U0001f600", '"'])
@each_of("method", ["GET", "POST"])
def test_a_request_is_kept_up_to_8_kib(op: Provider, method: str, filling: str) -> None:
    """RFC 6749 §4.1.1, docs/security.md: 8 KiB as it is written in an address are kept and answered; a byte more is not."""
    request = op.rp().request()
    for size, taken in ((MOST_BYTES, True), (MOST_BYTES + 1, False)):
        browser, parameters = op.browser(), _filled(request, size, filling)
        before = len(_kept(op))
        url = f"{op.issuer}/oidc/authorize"
        if method == "GET":
            landing = browser.go(f"{url}?{urlencode(parameters)}")
        else:
            landing = browser.go(url, form=parameters, cross_site=True)
        if taken:
            assert landing.is_at(LOGIN_URL)
            landing = op.finish(browser, landing)
            assert query_of(landing.url)["state"] == parameters["state"] and "code" in query_of(landing.url)
        else:
            assert landing.is_at(CALLBACK) and query_of(landing.url)["error"] == "invalid_request"
            assert len(_kept(op)) == before


@each_of("mode", ["query", "form_post"])
@each_of("size", [20_000, 60_000])
def test_a_huge_state_is_refused_at_once(op: Provider, size: int, mode: str) -> None:
    """docs/security.md: refused before the sign-in; no answer is so long that a proxy would drop it."""
    request = op.rp().request(state="s" * size, response_mode=mode)
    landing = op.browser().go(f"{op.issuer}/oidc/authorize", form=request.parameters, cross_site=True)
    assert (landing.action if mode == "form_post" else landing.url.partition("?")[0]) == CALLBACK
    assert landing.parameters == {
        "error": "invalid_request",
        "error_description": landing.parameters["error_description"],
        "iss": op.issuer,
    }
    assert sum(len(f"{name}: {value}") for name, value in landing.answer.headers.items()) < MOST_BYTES
    assert not _kept(op)


def test_any_parameter_may_be_too_large(op: Provider) -> None:
    """docs/security.md: what is kept is measured whole; the `state` comes back where it is not what is too large."""
    for name in ("nonce", "login_hint", "acr_values", "ui_locales", "claims"):
        value = json.dumps({"userinfo": {"x" * 9000: None}}) if name == "claims" else "x" * 9000
        request = op.rp().request(state="mine", **{name: value})
        landing = op.browser().go(f"{op.issuer}/oidc/authorize", form=request.parameters, cross_site=True)
        assert op.answered(request, landing)["error"] == "invalid_request", name
    assert not _kept(op)


def test_before_trust_it_is_a_page(op: Provider) -> None:
    """RFC 6749 §4.1.2.1: an unknown client's huge request is a page, and nothing is kept."""
    for changes in ({"client_id": "x" * 30_000}, {"redirect_uri": "https://evil.example/" + "x" * 30_000}):
        request = op.rp().request(**changes)
        assert op.browser().go(f"{op.issuer}/oidc/authorize", form=request.parameters).is_page(400)
    assert not _kept(op)


@each_of("method", ["GET", "POST"])
def test_only_known_parameters_are_kept(op: Provider, method: str) -> None:
    """docs/security.md: what nobody asks about again is dropped, whatever its size; an ID token is not kept as it came."""
    hint = op.sign_in().tokens["id_token"]
    request = op.rp().request(
        unknown="CANARY" * 5_000, display="CANARY", claims_locales="CANARY", id_token_hint=hint
    )
    browser = op.browser()
    if method == "GET":
        landing = browser.go(request.url)
    else:
        landing = browser.go(f"{op.issuer}/oidc/authorize", form=request.parameters, cross_site=True)
    bodies = [body for _, body in _kept(op)]
    assert len(bodies) == 1 and "CANARY" not in bodies[0] and hint not in bodies[0]
    assert hint.split(".")[1] not in bodies[0] and hint.split(".")[2] not in bodies[0]
    assert "code" in query_of(op.finish(browser, landing).url)


@pytest.mark.parametrize("user", ["ada", "bob"])
def test_what_the_hint_says_is_kept(op: Provider, user: str) -> None:
    """OpenID Connect Core §3.1.2.1: the hint still says which user it must be, also after its key would be unknown."""
    hint = op.sign_in().tokens["id_token"]
    request, browser = op.rp().request(id_token_hint=hint), op.browser()
    landing = op.finish(browser, browser.go(request.url), user=user)
    assert ("code" in op.answered(request, landing)) is (user == "ada")


# --- logout ---


@each_of(
    "form",
    [
        {},
        {"state": "x" * 60_000},
        {"state": "x", "ui_locales": "de", "logout_hint": "ada"},
        {"client_id": "unknown", "state": "x" * 60_000},
        {"id_token_hint": "not.a.token", "post_logout_redirect_uri": SIGNED_OUT, "state": "x"},
        {"post_logout_redirect_uri": SIGNED_OUT, "state": "x"},
    ],
)
def test_a_logout_without_hint_and_client_leaves_nothing(op: Provider, form: dict[str, str]) -> None:
    """RP-Initiated Logout in OpenID Connect §2, docs/security.md: nothing at all is kept; the user is asked as before."""
    browser = op.browser()
    op.sign_in(browser)
    before = _kept(op)
    answer = browser.ask("POST", f"{op.issuer}/oidc/logout", form=form, cross_site=True)
    assert (answer.status, answer.headers["Location"]) == (303, f"{op.issuer}/oidc/logout")
    assert _kept(op) == before
    page = browser.go(answer.headers["Location"])
    assert page.is_page() and page.action


@pytest.mark.parametrize("with_hint", [True, False])
def test_a_logout_request_is_kept_up_to_8_kib(op: Provider, with_hint: bool) -> None:
    """docs/security.md: a larger one is a page at once, and nothing is kept; only what a hint says is kept."""
    browser = op.browser()
    signed = op.sign_in(browser)
    known = {"id_token_hint": signed.tokens["id_token"]} if with_hint else {"client_id": "c-basic"}
    form = {**known, "post_logout_redirect_uri": SIGNED_OUT}
    answer = browser.ask("POST", f"{op.issuer}/oidc/logout", form=form | {"state": "x" * 9_000})
    assert answer.status == 400 and answer.headers["Content-Type"].startswith("text/html")
    assert not _kept(op)
    landing = browser.go(f"{op.issuer}/oidc/logout", form=form | {"state": "x" * 7_900})
    if not with_hint:
        landing = browser.submit(landing, decision="allow")
    assert landing.url == f"{SIGNED_OUT}?state={'x' * 7_900}"
    assert not any(signed.tokens["id_token"].split(".")[2] in body for _, body in _kept(op))


def test_a_state_that_leads_nowhere_is_not_kept(op: Provider) -> None:
    """RP-Initiated Logout in OpenID Connect §3: without an address to go to there is nothing to carry."""
    _post(op, "/oidc/logout", {"client_id": "c-basic", "state": "CANARY"})
    assert not any("CANARY" in body for _, body in _kept(op))


def test_a_kept_logout_request_is_of_its_issuer(op: Provider) -> None:
    """RFC 9207 §2, docs/security.md: what is kept stores its issuer."""
    form = {"client_id": "c-basic", "post_logout_redirect_uri": SIGNED_OUT}
    _post(op, "/oidc/logout", form)
    ((_, body),) = _kept(op)
    assert json.loads(body)["issuer"] == op.issuer


def test_a_logout_request_is_no_interaction(op: Provider) -> None:
    """docs/security.md: kinds of what waits do not pass for each other, whatever a path says."""
    _post(op, "/oidc/logout", {"client_id": "c-basic"})
    answer = _post(op, "/oidc/logout", {"client_id": "c-basic"})
    handle = query_of(answer.headers["Location"])["posted"]
    for path in (handle, f"logout request\n{handle}", f"logout form\n{handle}"):
        assert op.ask("GET", f"/oidc/interaction/{path}").status == 400


# --- how many ---


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch, op: Provider) -> Iterator[Provider]:
    """A provider whose bounds are small: the numbers of docs/security.md would take a test minutes."""
    monkeypatch.setattr(waiting, "MOST_OF_ONE_ADDRESS", EACH)
    monkeypatch.setattr(waiting, "MOST_IN_ALL", ALL)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 4)
    yield op


def _begin_by_get(op: Provider, address: str) -> None:
    answer = op.ask(
        "GET",
        "/oidc/authorize",
        query=urlencode(op.rp().request().parameters),
        environ={"REMOTE_ADDR": address},
    )
    assert answer.status == 303


def _begin_by_post(op: Provider, address: str) -> None:
    assert _post(op, "/oidc/authorize", op.rp().request().parameters, address).status == 303


def _begin_logout(op: Provider, address: str) -> None:
    form = {"client_id": "c-basic", "post_logout_redirect_uri": SIGNED_OUT}
    assert _post(op, "/oidc/logout", form, address).status == 303


BEGINNINGS = pytest.mark.parametrize("begin", [_begin_by_get, _begin_by_post, _begin_logout])


@BEGINNINGS
def test_one_address_has_so_many_waiting(tight: Provider, begin: Callable[[Provider, str], None]) -> None:
    """docs/security.md: it loses its oldest; users elsewhere keep theirs."""
    browser = tight.browser()
    landing = browser.go(tight.rp().request().url)
    for _ in range(3 * EACH):
        begin(tight, STRANGER)
    assert len(_kept(tight)) <= EACH + 4 + 1
    assert "code" in query_of(tight.finish(browser, landing).url)


def test_one_address_has_so_many_devices(
    serve_provider: ServeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/security.md: devices that wait have the same bounds, of their own; those of others stay."""
    for name, most in (("MOST_OF_ONE_ADDRESS", EACH), ("MOST_IN_ALL", ALL), ("LOOK_EVERY", 4)):
        monkeypatch.setattr(waiting, name, most)
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    screen = {"client_id": "screen", "grant_types": [grant], "token_endpoint_auth_method": "none"}
    op = serve_provider([screen])
    form = {"client_id": "screen", "scope": "openid"}
    path = "/oidc/device_authorization"
    other = _post(op, path, form, "203.0.113.77").json()
    mine = []
    for _ in range(3 * EACH):
        op.clock.advance(1)  # of those of one second, any may be the oldest
        mine.append(_post(op, path, form, STRANGER).json())
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        ((count,),) = database.execute("SELECT count(*) FROM device")
    assert count <= EACH + 4 + 1
    for codes, error in (
        (other, "authorization_pending"),
        (mine[-1], "authorization_pending"),
        (mine[0], "invalid_grant"),
    ):
        asked = {"client_id": "screen", "grant_type": grant, "device_code": codes["device_code"]}
        assert _post(op, "/oidc/token", asked).json()["error"] == error


@pytest.mark.parametrize(
    "address",
    [lambda n: f"198.51.{n // 200}.{n % 200 + 1}", lambda n: f"2001:db8:0:{n:x}::{n:x}"],
    ids=["IPv4", "IPv6 by /64"],
)
def test_there_are_so_many_in_all(tight: Provider, address: Callable[[int], str]) -> None:
    """docs/security.md: from however many addresses; the one with the most waiting loses its oldest, others nothing."""
    browser = tight.browser()
    landing = browser.go(tight.rp().request().url)
    for n in range(4 * ALL):
        _begin_by_post(tight, address(n % (ALL // 2)))
    assert len(_kept(tight)) <= ALL + 4
    assert "code" in query_of(tight.finish(browser, landing).url)


def test_an_ipv6_network_is_one_address(tight: Provider) -> None:
    """RFC 6177 §2: a site has at least a /64: its owner cannot fill the store by the addresses in it."""
    for n in range(3 * EACH):
        _begin_by_post(tight, f"2001:db8:0:1:{n:x}::{n:x}")
    assert len(_kept(tight)) <= EACH + 4


@pytest.mark.parametrize("peer", ["", "127.0.0.1"])
def test_an_unknown_address_is_bounded_in_all(tight: Provider, peer: str) -> None:
    """docs/security.md: behind a proxy that names none, or a Unix socket, only the bound in all holds."""
    for _ in range(2 * EACH):
        _begin_by_post(tight, peer)
    assert len(_kept(tight)) == 2 * EACH
    for _ in range(2 * ALL):
        _begin_by_post(tight, peer)
    assert ALL - ALL // 4 <= len(_kept(tight)) <= ALL + 4


def test_the_address_is_what_a_trusted_proxy_says(tight: Provider) -> None:
    """docs/security.md: as the log has it: the right-most entry of X-Forwarded-For, only from a trusted proxy."""
    for n in range(3 * EACH):
        form = urlencode(tight.rp().request().parameters).encode()
        tight.ask(
            "POST", "/oidc/authorize", body=form, content_type=FORM,
            headers={"X-Forwarded-For": f"203.0.113.{n}, {STRANGER}"}, environ={"REMOTE_ADDR": "127.0.0.1"},
        )  # fmt: skip
    assert len(_kept(tight)) <= EACH + 4


def test_the_confirm_page_of_logout_is_bounded_too(tight: Provider) -> None:
    """docs/security.md: each showing of the page keeps something; the newest one is good."""
    browser = tight.browser()
    tight.sign_in(browser)
    for _ in range(3 * EACH):
        page = browser.go(f"{tight.issuer}/oidc/logout")
        tight.clock.advance(1)
    assert len(_kept(tight)) <= EACH + 4
    assert "You are signed out" in browser.submit(page, decision="allow").text


def test_what_was_dropped_is_over(tight: Provider) -> None:
    """docs/security.md: a page, and 404 to the app; the browser that began it can begin again."""
    browser = tight.browser()
    landing = browser.go(tight.rp("c-third").request().url)
    tight.clock.advance(1)
    for _ in range(2 * EACH):
        _begin_by_post(tight, "203.0.113.9")
    assert browser.go(query_of(landing.url)["return_to"]).is_page(400)
    assert tight.app.call("GET", f"/api/oidc/interactions/{tight.app.interaction(landing)}").status == 404
    landing = tight.finish(browser, browser.go(tight.rp("c-third").request().url))
    assert landing.is_at(OTHER_CALLBACK)


# --- strangers ---


def _strangers(op: Provider) -> list[tuple[str, int]]:
    """The rows of clients: from which address each came, and when it ends."""
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        return list(database.execute("SELECT subject, expires_at FROM client"))


def test_registrations_are_bounded(serve_provider: ServeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/security.md: for each address and in all; one that is in use stays, honest ones register and
    sign in meanwhile, and nothing else is left after the sweep.
    """
    monkeypatch.setattr(unused, "MOST_OF_ONE_ADDRESS", EACH)
    monkeypatch.setattr(unused, "MOST_IN_ALL", ALL)
    op = serve_provider(PYLON_OIDC_REGISTRATION="open")
    op.app.call("POST", "/api/oidc/clients", {"client_id": "mine", "redirect_uris": [CALLBACK]})
    in_use = registered(op)
    op.authorize(op.browser(), in_use.rp().request())
    flood = [STRANGER] * 200 + [f"198.51.100.{number % 250}" for number in range(300)]
    flood += [f"2001:db8:0:{number}::1" for number in range(100)]
    for number, address in enumerate(flood):
        assert register(op, address=address).status == 201
        assert len(_strangers(op)) - 2 <= ALL + unused.LOOK_EVERY
        if number == 199:  # the flood came from one address, which has lost its oldest
            assert len(_strangers(op)) - 2 <= EACH + unused.LOOK_EVERY
        if number % 100 == 50:
            honest = registered(op, address="203.0.113.77")
            assert "code" in op.authorize(op.browser(), honest.rp().request())
    assert in_use.manage("GET").status == 200
    op.clock.advance(31 * 86_400)
    with closing(open_store(op.house.settings)) as store:
        while store.delete_expired(now=int(op.clock()), limit=1000):
            pass
    assert sorted(_strangers(op)) == [("", NEVER)] * (2 + len(flood) // 100)


def test_a_registration_is_bounded_in_size(serve_provider: ServeProvider) -> None:
    """docs/security.md: 16 KiB are taken, unknown members are not stored, a byte more is refused."""
    op = serve_provider(PYLON_OIDC_REGISTRATION="open")
    body = json.dumps({"redirect_uris": [CALLBACK], "contacts": ["x" * 255] * 20, "unknown": ""}).encode()
    filled = body[:-2] + b"u" * (16_384 - len(body)) + body[-2:]
    assert op.ask("POST", "/oidc/register", body=filled).status == 201
    assert op.ask("POST", "/oidc/register", body=b" " + filled).status == 413
    # What is stored is ASCII, so other characters count as what they become.
    wide = {"redirect_uris": [CALLBACK], "contacts": ["\U0001f600" * 255] * 6}
    assert op.ask("POST", "/oidc/register", body=json.dumps(wide, ensure_ascii=False).encode()).status == 413
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        ((size,),) = database.execute("SELECT length(body) FROM client")
    assert size < 8_192


def test_assertions_of_an_unused_stranger_leave_one_row(
    serve_provider: ServeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/security.md: a limited number at a time, each accepted once, also after the first sign-in; from then on there is no limit."""
    monkeypatch.setattr(assertions, "MOST_OF_UNUSED", 5)
    op = serve_provider(PYLON_OIDC_REGISTRATION="open")
    stranger = registered(op, token_endpoint_auth_method="private_key_jwt", jwks=public("ec"))

    def asked(text: str) -> int:
        answer = ask(op, text, "/oidc/introspect", token="x")
        assert answer.status != 503 or answer.json()["error"] == "temporarily_unavailable"
        return answer.status

    def rows() -> int:
        with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
            (count,) = database.execute("SELECT count(*) FROM replay_marker").fetchone()
            return int(count)

    def made(count: int) -> list[str]:
        return [assertion(op.clock(), client_id=stranger.client_id) for _ in range(count)]

    texts = made(7)
    assert list(map(asked, texts)) == [200] * 5 + [503] * 2
    assert list(map(asked, texts)) == [401] * 5 + [503] * 2
    assert rows() == 1
    op.clock.advance(400)
    again = made(5)
    assert list(map(asked, again)) == [200] * 5
    assert rows() == 1
    rp = stranger.rp(secret=None)
    assert "code" in op.authorize(op.browser(), rp.request())
    assert list(map(asked, again)) == [401] * 5
    texts = made(7)
    assert list(map(asked, texts)) == [200] * 7
    assert list(map(asked, texts)) == [401] * 7
