"""Token exchange while its session, its grant or its token is ended: statement by statement, nothing outlives its end."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

import pytest

from service.app import create_app
from service.keys.starting import load_managed_keys
from service.settings import read_settings
from tests.http.driver import Clock, House
from tests.provider.driver import CALLBACK, SECRET, Provider
from tests.storage.outages import migrated_database
from tests.storage.scheduling import Schedule
from tests.storage.stores import open_url
from tests.storage.worlds import ENVIRON, M
from tests.support.gunicorn import Answer

GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE: Final = "urn:ietf:params:oauth:token-type:"
EDGE, API = "https://edge.example.com", "https://api.example.com"
POLICIES: Final = f"""
[default]
alg = "ES256"

[audience.api]

[audience."{EDGE}"]
grants = ["mint", "authorization_code"]

[audience."{API}"]
grants = ["token_exchange"]
"""
CLIENTS: Final[list[dict[str, Any]]] = [
    {"client_id": "gateway", "client_secret": SECRET, "grant_types": [GRANT], "resource_ids": [EDGE, API]},
    {
        "client_id": "web", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True,
        "grant_types": ["authorization_code", GRANT], "id_token_signed_response_alg": "ES256",
    },
]  # fmt: skip
#: After how many statements of an exchange the end comes: before it has looked at anything, in between, and behind it.
BEFORE: Final = (1, 2, 4)


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Provider, Schedule]]:
    """A provider with policies, whose statements run in an order that a test says."""
    file = tmp_path_factory.mktemp("policies") / "policies.toml"
    file.write_text(POLICIES)
    environ = ENVIRON | {"PYLON_POLICIES": str(file), "PYLON_OIDC_CLIENTS": json.dumps(CLIENTS)}
    with migrated_database(request) as (url, _), closing(open_url(url)) as store:
        settings, clock = read_settings(environ | {"DATABASE_URL": url}).settings, Clock()
        keys, _ = load_managed_keys(settings, store, M, clock)
        app = create_app(settings, store, keys, clock)
        yield Provider(House(app, settings, clock, io.StringIO()), CLIENTS), Schedule(store)


def _exchange(op: Provider, client_id: str, token: str, kind: str = "access_token") -> Answer:
    form = {
        "grant_type": GRANT,
        "subject_token": token,
        "subject_token_type": TYPE + kind,
        "resource": API,
    }
    return op.rp(client_id).post("/oidc/token", form)


def _is_active(op: Provider, token: str) -> bool:
    return bool(op.rp("gateway").introspect(token).json()["active"])


def _subject(op: Provider, kind: str, user: str) -> tuple[str, str, str, str]:
    """A session, and a token of that kind that stands on it; who may exchange it, and as what."""
    browser = op.browser()
    session = op.app.sign_in(browser, user)["token"]
    if kind == "minted":
        answer = op.ask("POST", "/api/auth/jwt", token=session, json={"audience": EDGE})
        return session, answer.json()["token"], "gateway", "access_token"
    rp = op.rp("web")
    request = rp.request(scope="openid", resource=EDGE if kind == "for an API" else None)
    code = op.authorize(browser, request, user=user, way="cookie")["code"]
    tokens = rp.redeem(request, code).json()
    if kind == "an ID token":
        return session, tokens["id_token"], "web", "id_token"
    return session, tokens["access_token"], "gateway" if kind == "for an API" else "web", "access_token"


def _sign_out(op: Provider, user: str, session: str, token: str) -> Answer:
    return op.ask("DELETE", "/api/auth/session", token=session)


def _lock_out(op: Provider, user: str, session: str, token: str) -> Answer:
    return op.app.call("DELETE", f"/api/auth/users/{user}/sessions")


def _end_grants(op: Provider, user: str, session: str, token: str) -> Answer:
    for grant in op.app.grants(user):
        answer = op.app.call("DELETE", f"/api/oidc/grants/{grant['id']}")
        assert answer.status == 204
    return answer


def _revoke(op: Provider, user: str, session: str, token: str) -> Answer:
    return op.rp("web").revoke(token)


_ENDS: Final[dict[str, Callable[..., Answer]]] = {
    "sign out": _sign_out,
    "lock out": _lock_out,
    "end the grant": _end_grants,
    "revoke": _revoke,
}
#: What is exchanged, and what ends it.
CASES: Final = [
    *(("minted", end) for end in ("sign out", "lock out")),
    *(("for an API", end) for end in _ENDS),
    *(("opaque", end) for end in _ENDS),
    *(("an ID token", end) for end in ("sign out", "lock out", "end the grant")),
]
_numbers = itertools.count()


def test_what_was_exchanged_ends_with_what_it_stands_on(
    world: tuple[Provider, Schedule], subtests: pytest.Subtests
) -> None:
    """The end comes before each statement of an exchange: what is given stops working from then on, and never lives on."""
    op, schedule = world
    given: set[int] = set()
    for (kind, end), before in itertools.product(CASES, BEFORE):
        with subtests.test(kind, end=end, before=before):
            user = f"user-{next(_numbers)}"
            session, token, client_id, as_what = _subject(op, kind, user)
            standing = _exchange(op, client_id, token, as_what)
            assert standing.status == 200, standing
            assert _is_active(op, standing.json()["access_token"])
            calls = [
                partial(_exchange, op, client_id, token, as_what),
                partial(_ENDS[end], op, user, session, token),
            ]
            # The first runs for so many statements, then the other to its end.
            raced, ended = schedule.run(calls, itertools.chain([0] * before, itertools.repeat(1)))
            assert ended.status in {200, 204}
            given.add(raced.status)
            tokens = [standing.json()["access_token"]]
            tokens += [raced.json()["access_token"]] if raced.status == 200 else []
            assert not any(_is_active(op, each) for each in tokens)
            assert not any(_exchange(op, "gateway", each).status == 200 for each in tokens)
            assert _exchange(op, client_id, token, as_what).json()["error"] == "invalid_request"
    assert given == {200, 400}  # the end was before what an exchange looks at, and behind it
