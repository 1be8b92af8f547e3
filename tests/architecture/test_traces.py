"""The traces of docs/architecture.md, followed in a running application: what a request enters is what they name."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from types import FrameType
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from falcon.testing import TestClient

from service.app import create_app
from service.startup import prepare
from tests.docs.markdown import PROJECT, codes, page, section
from tests.support.gunicorn import ADMIN, SECRET, rsa_pem

SERVICE = f"{PROJECT / 'service'}/"
#: Builds the application before there is a request; says what a store promises, without being one; entered by refusals.
NOT_ENTERED = {"app.py", "storage/interface.py", "protocol/errors.py"}
#: Rooms whose number is bounded: what decides. Below them are records, the store and HTTP, which are only named.
COUNTED = ("resources/", "protocol/", "keys/")
EVERY = "What every request passes"
CLIENT = {
    "client_id": "wiki",
    "client_secret": SECRET[::-1],
    "redirect_uris": ["https://wiki.example.com/callback"],
    "first_party": True,
}
REQUEST = {
    "response_type": "code",
    "client_id": "wiki",
    "redirect_uri": "https://wiki.example.com/callback",
    "scope": "openid",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",  # RFC 7636, appendix B
    "code_challenge_method": "S256",
}

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

TestClient.__test__ = False  # its name is not meant for pytest


def entered_by(call: Callable[[], object]) -> set[str]:
    """The files of the service that a call enters."""
    found = set()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(SERVICE) and file.endswith(".py"):
            found.add(file.removeprefix(SERVICE))

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def trace_complaints(text: str, heading: str, entered: set[str], *, most: int = 9) -> list[str]:
    """What a trace, with what every request passes, leaves out or names for nothing; whether it enters too many rooms."""
    trace = section(text, heading)
    passed = {code.removeprefix("service/") for code in codes(section(text, EVERY))}
    rooms = sorted(file for file in entered - passed if file.startswith(COUNTED))
    steps = re.findall(r"^\d\. \*\*`service/[\w/.]+`\*\*", trace, re.M)
    named = {
        code.removeprefix("service/")
        for code in codes(section(text, EVERY) + trace)
        if re.fullmatch(r"[\w/]+\.py", code)
    }
    return [
        *(f"{file} is entered and not named" for file in sorted(entered - named)),
        *(f"{file} is named and not entered" for file in sorted(named - entered - NOT_ENTERED)),
        *([] if len(steps) == 5 else [f"{len(steps)} files decide"]),
        *([] if len(rooms) <= most else [f"{len(rooms)} rooms are entered: {', '.join(rooms)}"]),
    ]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """The application, without a server."""
    environ = {
        "PYLON_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "PYLON_OIDC_ISSUER": "https://id.example.com",
        "PYLON_JWT_SECRET": SECRET,
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
        "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
        "PYLON_OIDC_CLIENTS": json.dumps([CLIENT]),
    }
    prepared = prepare(environ, clock=time.time)
    return TestClient(create_app(prepared.settings, prepared.store, prepared.keyring))


@pytest.fixture(scope="module")
def session(client: TestClient) -> str:
    """The session token of a user."""
    admin = {"Authorization": f"Bearer {ADMIN}"}
    token: str = client.simulate_post("/api/auth/session", headers=admin, json={"user_id": "ada"}).json[
        "token"
    ]
    return token


def test_a_mint_enters_what_is_documented(client: TestClient, session: str) -> None:
    """docs/architecture.md names each file that a mint enters: by header, by cookie, and refused."""

    def mint(headers: dict[str, str], status: int) -> None:
        assert client.simulate_post("/api/auth/jwt", headers=headers).status_code == status

    def every() -> None:
        mint({"Authorization": f"Bearer {session}"}, 200)
        mint({"Cookie": f"pylon_session={session}"}, 200)
        mint({}, 401)

    assert (
        trace_complaints(
            page("architecture.md"), "The trace of `POST /api/auth/jwt`", entered_by(every), most=5
        )
        == []
    )


def test_an_authorization_request_enters_what_is_documented(
    client: TestClient, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/architecture.md names each file that an authorization request enters: to a code, to sign-in, and refused."""

    # wsgiref wants a type of an empty redirect too; HTTP does not.
    monkeypatch.setattr("wsgiref.validate.check_content_type", lambda _status, _headers: None)

    def authorize(cookie: str, status: int, to: str, **changed: str) -> None:
        headers = {"Cookie": f"pylon_session={cookie}"}
        answer = client.simulate_get("/oidc/authorize", params=REQUEST | changed, headers=headers)
        assert answer.status_code == status
        assert answer.headers.get("location", "").startswith(to)

    def every() -> None:
        authorize(session, 303, "https://wiki.example.com/callback?code=")
        authorize("", 303, "https://app.example.com/sign-in?")
        authorize(session, 303, "https://wiki.example.com/callback?error=", prompt="unknown")
        authorize(session, 400, "", client_id="unknown")

    # What every endpoint may answer by; here refusals are pages and redirects.
    entered = entered_by(every) | {"web/errors.py"}
    assert trace_complaints(page("architecture.md"), "The trace of `GET /oidc/authorize`", entered) == []


def test_an_exchange_enters_what_is_documented(
    client: TestClient, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/architecture.md names each file that the exchange of a code enters: to tokens, and refused."""
    monkeypatch.setattr("wsgiref.validate.check_content_type", lambda _status, _headers: None)
    headers = {"Cookie": f"pylon_session={session}"}
    sent = client.simulate_get("/oidc/authorize", params=REQUEST, headers=headers).headers["location"]
    form = {
        "grant_type": "authorization_code",
        "code": parse_qs(urlsplit(sent).query)["code"][0],
        "redirect_uri": REQUEST["redirect_uri"],
        "client_id": CLIENT["client_id"],
        "client_secret": CLIENT["client_secret"],
    }

    def exchange(status: int, **changed: str) -> None:
        answer = client.simulate_post(
            "/oidc/token",
            body=urlencode(form | changed),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == status, answer.json

    def every() -> None:
        exchange(400)  # no verifier
        exchange(401, client_secret="no")
        exchange(200, code_verifier=VERIFIER)

    assert (
        trace_complaints(page("architecture.md"), "The trace of `POST /oidc/token`", entered_by(every)) == []
    )


def test_a_trace_that_is_wrong_is_found() -> None:
    """Every check has a refusing test."""
    five = "".join(f"{n}. **`service/{n}.py`** decides\n" for n in range(1, 6))
    text = f"## {EVERY}\n\n`web/a.py`\n\n## The trace\n\n{five}\n"
    entered = {"web/a.py", *(f"{n}.py" for n in range(1, 6))}
    assert trace_complaints(text, "The trace", entered) == []
    assert trace_complaints(text, "The trace", entered | {"b.py"}) == ["b.py is entered and not named"]
    assert trace_complaints(text, "The trace", entered - {"web/a.py"}) == [
        "web/a.py is named and not entered"
    ]
    assert trace_complaints(text.replace("5. ", ""), "The trace", entered) == ["4 files decide"]
    many = "".join(f"`protocol/{n}.py`\n" for n in range(3))
    rooms = {f"protocol/{n}.py" for n in range(3)}
    assert trace_complaints(text + many, "The trace", entered | rooms, most=3) == []
    assert trace_complaints(text + many, "The trace", entered | rooms, most=2) == [
        "3 rooms are entered: protocol/0.py, protocol/1.py, protocol/2.py"
    ]
