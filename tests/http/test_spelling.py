"""A route has one spelling: the path as it was sent is the path as it is read, except for identifiers that others choose."""

from __future__ import annotations

from tests.http.conftest import Serve
from tests.http.driver import Answer, House, refused
from tests.http.test_errors import ROUTES
from tests.support.cases import each_of

#: Routes whose identifier others choose: only the identifier may be encoded.
NAMED = ("/api/auth/users/", "/api/oidc/clients/")


def _sent(house: House, raw: str, path: str, method: str = "GET", name: str = "RAW_URI") -> Answer:
    """Ask as a server does that read `path` from `raw`."""
    environ = {"RAW_URI": None, name: raw}
    return house.ask(method, path, admin=True, environ=environ)


def _spellings(path: str) -> list[str]:
    """Some others that a server reads as the same path: a letter, a slash, a dot, a dash, upper and lower case."""
    first, last = path.find("/", 1), len(path) - 1
    letters = [index for index, char in enumerate(path) if char.isalnum()]
    places = {letters[0], letters[-1], last, *([first] if first > 0 else [])}
    found = [
        f"{path[:i]}%{ord(path[i]):{case}}{path[i + 1 :]}" for i in sorted(places) for case in ("02x", "02X")
    ]
    whole = "".join(f"%{ord(char):02X}" if char != "/" else char for char in path)
    return [*dict.fromkeys(each for each in [*found, whole, f"{path}#x"] if each != path)]


def test_every_other_spelling_of_a_route_is_404(house: House) -> None:
    """RFC 3986 §6.2.2 lets a proxy compare what it was sent: what it did not mean to let through is not here."""
    for path, methods in ROUTES.items():
        if path.startswith(NAMED):
            continue
        method = sorted(methods)[0]
        for raw in _spellings(path):
            refused(_sent(house, raw, path, method), 404, "NOT_FOUND")
            refused(_sent(house, f"{raw}?a=b", path, method, "REQUEST_URI"), 404, "NOT_FOUND")


@each_of("prefix", ["", "/tenant"])
@each_of(
    ("raw", "path"),
    [
        ("/api/auth/users/ada#x", "/api/auth/users/ada"),
        ("/%61pi/auth/users/ada", "/api/auth/users/ada"),
        ("/api/auth/%75sers/ada", "/api/auth/users/ada"),
        ("/api/auth/users%2Fada", "/api/auth/users/ada"),
        ("/api/auth/users/ada/%73essions", "/api/auth/users/ada/sessions"),
        ("/api/oidc/clients/c_1/secre%74", "/api/oidc/clients/c_1/secret"),
        ("/api/%6fidc/clients/https%3A%2F%2Fapp.example", "/api/oidc/clients/https://app.example"),
        ("/api/oidc/%63lients", "/api/oidc/clients"),
    ],
)
def test_around_an_identifier_nothing_is_encoded(serve: Serve, raw: str, path: str, prefix: str) -> None:
    """The rest of a path with an identifier has one spelling too, under an issuer's path alike."""
    house = serve(PYLON_OIDC_ISSUER=f"https://id.example.test{prefix}")
    for method in ("GET", "PUT", "POST", "DELETE"):
        answer = _sent(house, prefix + raw, prefix + path, method)
        # `users%2Fada`, read as a path, is a route; `ada/%73essions` sent so is a user's name.
        if raw.startswith("/api/auth/users/ada/"):
            assert answer.status in {200, 400, 405, 415}
            assert house.requests_logged[-1]["route"] == f"{prefix}/api/auth/users/{{user_id}}"
        elif raw.startswith("/api/oidc/clients/c_1/"):
            assert house.requests_logged[-1]["route"] == f"{prefix}/api/oidc/clients/{{client_id}}"
        else:
            refused(answer, 404, "NOT_FOUND")
    if prefix:
        refused(_sent(house, f"/%74enant{path}", prefix + path), 404, "NOT_FOUND")


@each_of(
    ("raw", "user_id"),
    [
        ("ada", "ada"),
        ("%61da", "ada"),
        ("a%2Fb", "a/b"),
        ("a/b", "a/b"),
        ("a%2fsessions", "a/sessions"),
        ("https%3A%2F%2Fidp.example%2Fu%2F1", "https://idp.example/u/1"),
        ("%2F", "/"),
        ("a%25b", "a%b"),
        ("a%3Fb", "a?b"),
        ("%2e%2E", ".."),
        ("sessions", "sessions"),
    ],
)
def test_an_identifier_of_others_may_be_encoded(serve: Serve, raw: str, user_id: str) -> None:
    """A user's id is visible ASCII, and is sent as an URL can hold it; what is encoded never names another route."""
    house = serve()
    answer = house.ask(
        "PUT",
        f"/api/auth/users/{user_id}",
        admin=True,
        json={"tenant_id": "t"},
        environ={"RAW_URI": f"/api/auth/users/{raw}"},
    )
    assert (answer.status, answer.json()["user_id"]) == (200, user_id)
    house.sign_in(user_id)
    listed = house.ask(
        "GET",
        f"/api/auth/users/{user_id}/sessions",
        admin=True,
        environ={"RAW_URI": f"/api/auth/users/{raw}/sessions"},
    )
    assert len(listed.json()["sessions"]) == 1


def test_without_a_raw_path_a_route_is_served(house: House) -> None:
    """PEP 3333 knows no raw path: a server without one still serves, and readiness reports it."""
    answer = house.ask("GET", "/readyz", environ={"RAW_URI": None})
    assert answer.status == 200
    assert answer.json()["raw_path"] == "not passed by this server"
    assert house.ask("GET", "/oidc/jwks", environ={"RAW_URI": None}).status == 200
    for name in ("RAW_URI", "REQUEST_URI"):
        assert "raw_path" not in _sent(house, "/readyz", "/readyz", name=name).json()


def test_health_takes_an_absolute_target_by_its_own_spelling(house: House) -> None:
    """RFC 9112 §3.2.2: a server takes the absolute form; only health does not look at its authority."""
    assert _sent(house, "http://other.example/healthz", "/healthz").status == 200
    assert _sent(house, "http://other.example/healthz?x=/y", "/healthz").status == 200
    refused(_sent(house, "http://other.example/%68ealthz", "/healthz"), 404, "NOT_FOUND")
    refused(_sent(house, "http://other.example/oidc/jwks", "/oidc/jwks"), 400, "INVALID_HOST")
    refused(
        _sent(house, "http://other.example/oidc/jwks", "/oidc/jwks", name="REQUEST_URI"), 400, "INVALID_HOST"
    )
