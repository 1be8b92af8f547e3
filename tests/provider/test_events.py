"""An event is sent once it is stored, and nothing else is; a listener that fails changes nothing."""

from __future__ import annotations

from typing import Any, Final

from service.app import create_app
from service.events import LISTENERS, Event, Events
from service.keys.signing import Keys
from service.keys.starting import load_keyring
from service.startup import open_store
from service.storage.interface import Store, StoreUnavailable
from tests.http.conftest import Serve
from tests.http.driver import House
from tests.provider.browser import query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, Provider

#: What the log has of every event, and what else it has.
_STANDING: Final = {"event", "level", "ts", "request_id"}
_KNOWN: Final = frozenset(event.name for event in Event.__subclasses__())


def _told(house: House) -> list[dict[str, Any]]:
    """The lines of events, without what every line has."""
    lines = [line for line in house.lines if line["event"] in _KNOWN]
    assert all(line["request_id"] for line in lines)
    return [{name: line[name] for name in line if name == "event" or name not in _STANDING} for line in lines]


def test_what_happens_to_sessions_is_told(serve: Serve) -> None:
    """docs/deploy.md: sign-in, sign-out, sign-out elsewhere and lock-out; with user and `sid`, under the id of the request."""
    house = serve()
    first, second, third = (house.sign_in("ada") for _ in range(3))
    house.ask("DELETE", f"/api/auth/sessions/{second['sid']}", token=first["token"])
    house.ask("DELETE", "/api/auth/sessions", token=first["token"])
    house.ask("DELETE", "/api/auth/session", token=first["token"])
    house.ask("DELETE", "/api/auth/users/ada/sessions", admin=True, headers={"X-Request-Id": "lock-out"})
    ended = {"event": "session_ended", "user": "ada", "kept_sid": None, "count": 1}
    assert _told(house) == [
        *({"event": "signed_in", "user": "ada", "sid": each["sid"]} for each in (first, second, third)),
        ended | {"sid": second["sid"]},
        ended | {"kept_sid": first["sid"]},
        ended | {"sid": first["sid"]},
        {"event": "user_locked_out", "user": "ada", "count": 0},
    ]
    told = [line for line in house.lines if line["event"] == "user_locked_out"]
    assert [line["request_id"] for line in told] == ["lock-out"]


class _Breaking:
    """A store that can be broken: from then on it fails, whatever it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_broken = False

    def __getattr__(self, name: str) -> Any:
        if self.is_broken:
            raise StoreUnavailable("broken by the test")
        return getattr(self._store, name)


def test_what_was_not_stored_is_not_told(serve_provider: ServeProvider) -> None:
    """docs/architecture.md: a session and a client that are not there, one of the environment, a database that is gone."""
    made: list[_Breaking] = []

    def breaking(store: Store) -> Any:
        made.append(_Breaking(store))
        return made[0]

    op = serve_provider(store_of=breaking)
    house, store = op.house, made[0]
    begun = op.app.session("ada")
    op.ask("DELETE", "/api/auth/session", token=begun["token"])
    before = _told(house)
    op.ask("DELETE", "/api/auth/session", token=begun["token"])
    for method, path, body in (
        ("DELETE", "/api/oidc/clients/nobody", None),
        ("PUT", "/api/oidc/clients/c-basic", {"redirect_uris": ["https://wiki.example.com/"]}),
        (
            "POST",
            "/api/oidc/clients",
            {"client_id": "c-basic", "redirect_uris": ["https://wiki.example.com/"]},
        ),
        ("POST", "/api/oidc/clients/nobody/secret", None),
        ("DELETE", f"/api/oidc/grants/{'0' * 26}", None),
    ):
        answer = op.app.call(method, path, body)
        assert answer.status in {404, 409}, (path, answer)
    store.is_broken = True
    assert op.app.call("POST", "/api/auth/session", {"user_id": "ada"}).status == 503
    assert op.app.call("DELETE", "/api/auth/users/ada/sessions").status == 503
    assert _told(house) == before


def test_what_operators_do_to_clients_is_told(op: Provider) -> None:
    """docs/deploy.md: registered, changed, given another secret, removed."""
    metadata = {"client_id": "wiki", "redirect_uris": [CALLBACK]}
    op.app.call("POST", "/api/oidc/clients", metadata)
    op.app.call("PUT", "/api/oidc/clients/wiki", metadata | {"client_name": "Wiki"})
    op.app.call("POST", "/api/oidc/clients/wiki/secret")
    op.app.call("DELETE", "/api/oidc/clients/wiki")
    steps = ("registered", "metadata", "secret", "removed")
    assert _told(op.house) == [
        {"event": "client_changed", "client_id": "wiki", "what": what, "by": "operator"} for what in steps
    ]


def test_a_consent_is_told_once_and_so_is_its_end(op: Provider) -> None:
    """docs/deploy.md: by our own form; who is not asked again has not consented again; the operator ends the grant."""
    browser = op.browser()
    sid = op.app.sign_in(browser)["sid"]
    request = op.rp("c-third").request(scope="openid offline_access")
    code = op.authorize(browser, request)["code"]
    op.rp("c-third").redeem(request, code)
    op.authorize(browser, op.rp("c-third").request(scope="openid"))
    (grant, *_) = [each for each in op.app.grants() if each["last_used_at"]]
    op.app.call("DELETE", f"/api/oidc/grants/{grant['id']}")
    whose = {"client_id": "c-third", "user": "ada", "sid": sid}
    consents = [told for told in _told(op.house) if told["event"] == "consent_given"]
    assert consents == [
        {"event": "consent_given", **whose, "scope": ["openid", "offline_access"], "remembered": True}
    ]
    assert {"event": "grant_ended", **whose} in _told(op.house)


def test_a_no_is_no_consent(op: Provider) -> None:
    """docs/deploy.md: neither on our form, nor reported by the app for nothing of what was asked."""
    browser = op.browser()
    op.app.sign_in(browser)
    page = browser.go(op.rp("c-third").request().url)
    assert query_of(browser.submit(page, decision="deny").url)["error"] == "access_denied"
    assert "consent_given" not in {told["event"] for told in _told(op.house)}


def test_a_listener_that_fails_is_counted_and_changes_nothing(serve: Serve) -> None:
    """docs/deploy.md: the answer is the same, the change is stored, and later listeners hear; the log says that it failed."""
    made = serve()
    heard: list[Event] = []

    def fails(event: Event) -> None:
        raise ValueError(f"no room for {event.name}")

    events = Events((fails, heard.append, *LISTENERS))
    store = open_store(made.settings)
    keys = Keys(load_keyring(made.settings, make_key_file=False))
    house = House(
        create_app(made.settings, store, keys, made.clock, events), made.settings, made.clock, made.log
    )
    try:
        begun = house.sign_in("ada")
        assert house.me(begun["token"]).status == 200
        house.ask("DELETE", "/api/auth/users/ada/sessions", admin=True)
        assert house.me(begun["token"]).status == 401
    finally:
        store.close()
    assert [(event.name, event.subject) for event in heard] == [
        ("signed_in", "ada"),
        ("user_locked_out", "ada"),
    ]
    failures = [line for line in house.lines if line["event"] == "listener_failed"]
    assert [(line["told"], line["failed"], line["error"]) for line in failures] == [
        ("signed_in", 1, "ValueError"),
        ("user_locked_out", 2, "ValueError"),
    ]
    assert events.failed == 2
    assert {"signed_in", "user_locked_out"} <= {line["event"] for line in house.lines}
