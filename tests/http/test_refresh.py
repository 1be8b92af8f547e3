"""docs/endpoints.md: `POST /api/auth/refresh`: a new token for the same session."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.http.conftest import Serve
from tests.http.driver import DAY_S, START, House, refused
from tests.support.cases import each_of


def _refresh(house: House, token: str) -> dict[str, object]:
    answer = house.ask("POST", "/api/auth/refresh", token=token)
    assert answer.status == 200, answer
    value: dict[str, object] = answer.json()
    return value


def test_a_refresh_answers_token_sid_user_and_end(house: House) -> None:
    """200 `{token, sid, user_id, expires_at}`."""
    begun = house.sign_in(expires_in=600)
    house.clock.advance(100)
    value = _refresh(house, begun["token"])
    assert set(value) == {"token", "sid", "user_id", "expires_at"}
    assert value["token"] != begun["token"]
    assert (value["sid"], value["user_id"], value["expires_at"]) == (begun["sid"], "user-1", START + 700)


def test_what_hangs_on_the_session_stays(house: House) -> None:
    """`sid`, `auth_time` and what hangs on it stay."""
    said = {
        "tenant_id": "acme",
        "roles": ["dev"],
        "claims": {"name": "Ada"},
        "device": "Firefox",
        "acr": "2",
        "amr": ["pwd"],
    }
    begun = house.sign_in(auth_time=START - 50, **said)
    before = house.me(begun["token"]).json()
    house.clock.advance(100)
    after = house.me(str(_refresh(house, begun["token"])["token"])).json()
    assert after == before | {"expires_at": before["expires_at"] + 100}
    assert after["auth_time"] == START - 50


def test_the_old_token_dies(house: House) -> None:
    """The old token dies in the same transaction."""
    old = house.sign_in()["token"]
    new = str(_refresh(house, old)["token"])
    refused(house.me(old), 401, "AUTH_REQUIRED")
    refused(house.ask("POST", "/api/auth/refresh", token=old), 401, "AUTH_REQUIRED")
    assert house.me(new).status == 200


def test_the_session_stays_one_session(house: House) -> None:
    """A new token for the same session, not a second session; its prefix is the new token's."""
    begun = house.sign_in()
    new = str(_refresh(house, begun["token"])["token"])
    (listed,) = house.ask("GET", "/api/auth/sessions", token=new).json()["sessions"]
    assert listed["sid"] == begun["sid"]
    assert new.startswith(listed["token_prefix"])
    assert listed["created_at"] == START


@each_of("first_given", [60, 3600, 2_592_000])
def test_the_lifetime_is_the_one_first_given(house: House, first_given: int) -> None:
    """`expires_at` becomes now + the lifetime that the session was first given."""
    token = house.sign_in(expires_in=first_given)["token"]
    for _ in range(2):
        house.clock.advance(50)
        value = _refresh(house, token)
        token = str(value["token"])
        assert value["expires_at"] == house.clock.now + first_given


def test_no_refresh_reaches_beyond_90_days_from_the_first(serve: Serve) -> None:
    """Never beyond 90 days from the first."""
    house = serve(PYLON_SESSION_LIFETIME_SECS=str(30 * DAY_S))
    token = house.sign_in()["token"]
    ends = []
    for _ in range(4):
        house.clock.advance(25 * DAY_S - 1 if len(ends) < 3 else 15 * DAY_S + 2)
        value = _refresh(house, token)
        token = str(value["token"])
        ends.append(value["expires_at"])
    most = START + 90 * DAY_S
    assert ends == [START + 55 * DAY_S - 1, START + 80 * DAY_S - 2, most, most]
    house.clock.now = most - 1
    assert house.me(token).status == 200
    house.clock.now = most
    refused(house.ask("POST", "/api/auth/refresh", token=token), 401, "AUTH_REQUIRED")


def test_an_expired_session_is_not_refreshed(house: House) -> None:
    """Who is signed in is who has a live session."""
    token = house.sign_in(expires_in=10)["token"]
    house.clock.advance(10)
    refused(house.ask("POST", "/api/auth/refresh", token=token), 401, "AUTH_REQUIRED")


def test_of_many_refreshes_at_once_one_succeeds(house: House) -> None:
    """The old token dies in the same transaction, so that one token has one successor."""
    token = house.sign_in()["token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: house.ask("POST", "/api/auth/refresh", token=token), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 7
    (new,) = [answer.json()["token"] for answer in answers if answer.status == 200]
    assert house.me(new).status == 200
    assert len(house.ask("GET", "/api/auth/sessions", token=new).json()["sessions"]) == 1


def test_a_token_of_the_app_is_not_refreshed_by_what_it_minted(house: House) -> None:
    """Only a session token refreshes; a minted JWT is refused."""
    token = house.sign_in()["token"]
    minted = house.ask("POST", "/api/auth/jwt", token=token).json()["token"]
    refused(house.ask("POST", "/api/auth/refresh", token=minted), 401, "AUTH_REQUIRED")
