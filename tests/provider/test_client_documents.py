"""Clients that are known by their document (draft-ietf-oauth-client-id-metadata-document-02, docs/client-documents.md)."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from service.outbound.slots import Slots
from service.records import unused
from service.resources import parts
from service.startup import open_store
from tests.http.driver import refused, unverified_claims
from tests.provider.browser import Browser, Landing
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, Provider, RelyingParty, Request
from tests.provider.test_private_key_jwt import ask, assertion, public
from tests.support.cases import each_of
from tests.support.documents import Published, Publisher
from tests.support.gunicorn import Answer

HERE = "http://localhost:4321"
Make = Callable[..., Provider]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Publisher]:
    """A host of documents."""
    with Publisher(tmp_path) as publisher:
        yield publisher


@pytest.fixture
def make(serve_provider: ServeProvider, host: Publisher) -> Make:
    """Make a provider in dev mode that may ask that host."""

    def made(clients: Any = (), **environ: Any) -> Provider:
        return serve_provider(clients, **{"PYLON_OIDC_ISSUER": HERE, **host.environ, **environ})

    return made


@pytest.fixture
def op(make: Make) -> Provider:
    """A provider without any client."""
    return make()


def party(op: Provider, client_id: str, **options: Any) -> RelyingParty:
    """The client of a document."""
    return RelyingParty(op.house, client_id, **{"secret": None, "issuer": op.issuer} | options)


def signed_in(op: Provider) -> Browser:
    """A browser whose user is signed in."""
    browser = op.browser()
    op.app.sign_in(browser)
    return browser


def asked(
    op: Provider, client_id: str, browser: Browser | None = None, **changes: Any
) -> tuple[Request, Landing]:
    """A request of the client, and where the browser stands then."""
    request = party(op, client_id).request(**changes)
    return request, (browser or signed_in(op)).go(request.url)


def test_the_whole_flow(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: a document is a client: code, PKCE, refresh, userinfo; fetched once."""
    client_id = host.publish()
    rp, browser = party(op, client_id), op.browser()
    request = rp.request(scope="openid email offline_access")
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    assert rp.verified(tokens["id_token"])["aud"] == client_id
    assert rp.userinfo(tokens["access_token"]).json()["sub"] == "ada"
    assert "access_token" in rp.refresh(tokens["refresh_token"]).json()
    assert host.asked == ["/client.json"]
    assert rp.revoke(tokens["access_token"]).status == 200


def _copies(op: Provider) -> list[dict[str, Any]]:
    """The stored copies of documents, ended ones too."""
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        bodies = [json.loads(body) for (body,) in database.execute("SELECT body FROM client")]
    return [body for body in bodies if body["source"] == "document"]


def _no_document(op: Provider, landing: Landing) -> str:
    """The page is the one for a document that makes no client; its text without the request's id."""
    assert landing.is_page(400), landing.answer
    (line,) = [line for line in op.house.lines if line["event"] == "request"][-1:]
    return landing.text.replace(line["request_id"], "-")


# --- who may be one ---


def test_discovery_says_where_documents_count(make: Make) -> None:
    """docs/client-documents.md: draft §6: `client_id_metadata_document_supported`."""
    member = "client_id_metadata_document_supported"
    for value, said in (("on", True), ("*.example.com", True), ("off", None), (None, None)):
        op = make(PYLON_OIDC_CLIENT_DOCUMENTS=value)
        document = op.ask("GET", "/.well-known/oauth-authorization-server").json()
        assert document.get(member) is said
        assert "none" in document["token_endpoint_auth_methods_supported"]


@each_of("setting", ["off", "client.example.com", "*.0.0.1.example"])
def test_a_host_that_is_not_opened_is_not_asked(make: Make, host: Publisher, setting: str) -> None:
    """docs/client-documents.md: its client is unknown, as every unknown client."""
    op = make(PYLON_OIDC_CLIENT_DOCUMENTS=setting)
    _, landing = asked(op, host.publish())
    assert landing.is_page(400) and "not known to this server" in landing.text
    assert host.asked == [] and _copies(op) == []


def test_a_host_that_is_closed_later(make: Make, host: Publisher) -> None:
    """docs/client-documents.md: from then on its clients are unknown at every endpoint, although a copy is stored."""
    op, client_id = make(), host.publish()
    rp, browser = party(op, client_id), op.browser()
    request = rp.request(scope="openid offline_access")
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    later = make(
        PYLON_OIDC_CLIENT_DOCUMENTS="client.example.com", PYLON_DATA_DIR=str(op.house.settings.data_dir)
    )
    rp = party(later, client_id)
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_client"
    assert rp.userinfo(tokens["access_token"]).status == 401
    assert later.browser().go(rp.request().url).is_page(400)


def test_outside_dev_mode_no_private_address_is_asked(serve_provider: ServeProvider, host: Publisher) -> None:
    """docs/client-documents.md: the operator's list of hosts is not for strangers, neither for documents nor for keys."""
    environ = {name: value for name, value in host.environ.items() if name != "PYLON_DEV_MODE"}
    op = serve_provider((), **environ)
    by_name = host.origin.replace("127.0.0.1", "localhost")
    urls = [
        host.publish(),
        f"{by_name}/client.json",
        "https://10.0.0.1/a",
        "https://[::1]/a",
        "https://[::ffff:10.0.0.1]/a",
    ]
    assert len({_no_document(op, asked(op, url)[1]) for url in urls}) == 1
    assert host.asked == [] and _copies(op) == []


def test_one_page_for_every_failure(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: draft §5.1, §5.2: the log has the cause, the page none; nothing is stored, and the next request asks again."""
    url = f"{host.origin}/client.json"

    def redirect(wire: socket.socket) -> None:
        wire.sendall(b"HTTP/1.1 302 Found\r\nLocation: /other.json\r\nContent-Length: 0\r\n\r\n")

    secret = "0123456789abcdef" * 3
    cases: list[tuple[Published | None, str]] = [
        (None, "document_status"),
        (redirect, "document_status"),
        (lambda wire: wire.close(), "document_unreachable"),
        (host.answer("{" + " " * 5 * 1024), "document_unreachable"),
        (host.answer("<html>", "Content-Type: text/html"), "document_type"),
        (host.answer("nonsense"), "document_malformed"),
        (_of(host, client_id=f"{url}?"), "document_of_another"),
        (_of(host, client_id=f"{host.origin}/other.json"), "document_of_another"),
        (_of(host, client_secret=secret), "document_with_secret"),
        (_of(host, token_endpoint_auth_method="client_secret_basic"), "document_metadata"),
        (_of(host, token_endpoint_auth_method="client_secret_post"), "document_metadata"),
        (_of(host, token_endpoint_auth_method="private_key_jwt"), "document_metadata"),
        (_of(host, redirect_uris=None), "document_metadata"),
        (_of(host, redirect_uris=["http://rp.example.org/"]), "document_metadata"),
        (_of(host, redirect_uris=["myapp:/cb"], allow_any_scheme=True), "document_metadata"),
        (_of(host, grant_types=["client_credentials"]), "document_metadata"),
        (_of(host, scope="openid phone"), "document_metadata"),
        (_of(host, jwks={"keys": [{"kty": "oct", "k": "x"}]}, token_endpoint_auth_method="private_key_jwt"), "document_metadata"),
    ]  # fmt: skip
    host.at["/other.json"] = _of(host)
    pages, browser = set(), signed_in(op)
    for number, (published, cause) in enumerate(cases, 1):
        host.at.pop("/client.json", None)
        if published is not None:
            host.at["/client.json"] = published
        pages.add(_no_document(op, asked(op, url, browser)[1]))
        logged = op.house.lines[-1]
        assert (logged["status"], logged["error"], logged["cause"]) == (400, "invalid_request", cause), number
        assert len(host.asked) == number
    assert len(pages) == 1 and url not in pages.pop()
    assert _copies(op) == []
    assert secret not in op.house.log.getvalue()
    host.publish()
    assert asked(op, url, browser)[1].is_page(200)


def _of(host: Publisher, **members: Any) -> Published:
    """A document that is not published yet."""
    host.publish(**members)
    return host.at.pop("/client.json")


def test_a_document_of_5_kib_counts(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: draft §8.7: a document with one byte more is refused."""
    client_id = host.publish()
    text = json.dumps(host.at["/client.json"])
    browser = signed_in(op)
    host.at["/client.json"] = host.answer(text.ljust(5 * 1024 + 1))
    assert asked(op, client_id, browser)[1].is_page(400)
    host.at["/client.json"] = host.answer(text.ljust(5 * 1024))
    assert asked(op, client_id, browser)[1].is_page(200)


def test_a_url_of_255_characters_counts(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: at most 255 characters; and the operator may adopt such a client."""
    client_id = host.publish("/".ljust(255 - len(host.origin), "x"))
    rp, browser = party(op, client_id), op.browser()
    request = rp.request()
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    assert rp.verified(tokens["id_token"])["aud"] == client_id
    added = op.app.call("POST", "/api/oidc/clients", {"client_id": client_id, "redirect_uris": [CALLBACK]})
    assert added.status == 201, added


def test_the_operators_client_wins(make: Make, host: Publisher) -> None:
    """docs/client-documents.md: a document never takes the id of an operator's client, but the operator can register the id of a document."""
    client_id = host.publish(redirect_uris=["https://stranger.example.org/"])
    own = {"client_id": client_id, "redirect_uris": [CALLBACK], "first_party": True}
    op = make([own])
    assert asked(op, client_id)[1].is_at(CALLBACK) and host.asked == []
    op = make()
    rp, browser = party(op, client_id, redirect_uri="https://stranger.example.org/"), op.browser()
    request = rp.request(scope="openid offline_access")
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    answer = op.app.call("POST", "/api/oidc/clients", own | {"token_endpoint_auth_method": "none"})
    assert (answer.status, answer.json()["source"]) == (201, "database")
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert asked(op, client_id)[1].is_at(CALLBACK)
    assert len(host.asked) == 1 and _copies(op) == []
    # Not even if it is not served, because an audience got its name later.
    later = make(PYLON_JWT_AUDIENCE=client_id, PYLON_DATA_DIR=str(op.house.settings.data_dir))
    assert asked(later, client_id)[1].is_page(400)
    assert later.house.lines[-1]["cause"] == "client_known" and len(host.asked) == 1


def test_an_operator_sees_and_removes_it_and_changes_nothing(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: a document says what its client is; removing ends what it was given."""
    client_id = host.publish()
    rp, browser = party(op, client_id), op.browser()
    request = rp.request(scope="openid offline_access")
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    raw = {"RAW_URI": f"/api/oidc/clients/{quote(client_id, safe='')}"}

    def admin(method: str, **body: Any) -> Answer:
        return op.ask(method, f"/api/oidc/clients/{client_id}", admin=True, environ=raw, **body)

    assert admin("GET").json()["source"] == "document"
    wanted = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
    refused(admin("PUT", json=wanted), 409, "CLIENT_READ_ONLY")
    assert admin("DELETE").status == 204
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_client"
    assert _copies(op) == [] and op.app.grants() == []


def test_no_document_for_the_id_of_a_user_or_an_audience(make: Make, host: Publisher) -> None:
    """RFC 9700 §4.15: a client never has the `sub` of a user, nor is it called like an API."""
    client_id = host.publish()
    op = make()
    op.app.session(client_id)
    assert asked(op, client_id)[1].is_page(400)
    assert op.house.lines[-1]["cause"] == "document_of_a_user"
    op = make(PYLON_JWT_AUDIENCE=client_id)
    assert asked(op, client_id)[1].is_page(400)
    assert op.house.lines[-1]["cause"] == "document_metadata" and _copies(op) == []


def test_no_session_for_the_id_of_a_document(make: Make, host: Publisher, tmp_path: Path) -> None:
    """docs/policies.md: where clients get tokens of their own, no user has the id of a client, a stranger's either."""
    policies = tmp_path / "policies.toml"
    policies.write_text(
        '[audience."https://api.example.com"]\nalg = "RS256"\ngrants = ["client_credentials"]\n'
    )
    op = make(PYLON_POLICIES=str(policies))
    client_id = host.publish()
    assert asked(op, client_id)[1].is_page(200)
    refused(op.app.call("POST", "/api/auth/session", {"user_id": client_id}), 400, "INVALID_BODY")


# --- what it gets ---


def test_our_own_members_are_never_taken(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: members that only an operator decides are ignored: they skip neither consent nor PKCE, and open no audience."""
    client_id = host.publish(
        first_party=True, require_pkce=False, resource_ids=["api"], default_scopes=["phone"], logout_by_hint=True,
        claim_names={"name": "x"}, id_token_claims="requested", assertion_audience="token_endpoint", profile="x",
    )  # fmt: skip
    browser = signed_in(op)
    assert asked(op, client_id, browser)[1].is_page(200)  # it asks for consent
    _, landing = asked(op, client_id, browser, code_challenge=None, code_challenge_method=None)
    assert landing.parameters["error"] == "invalid_request"
    (copy,) = _copies(op)
    assert not copy["first_party"] and copy["resource_ids"] == [] and copy["default_scopes"] == []
    assert not copy["logout_by_hint"] and copy["claim_names"] == {} and copy["require_pkce"] is True


def test_it_gets_no_tokens_of_its_own(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: only the code flow and refresh: no client_credentials, no exchange, no introspection."""
    client_id = host.publish()
    asked(op, client_id)
    rp = party(op, client_id)
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    for grant_type in ("client_credentials", exchange):
        assert rp.post("/oidc/token", {"grant_type": grant_type}).json()["error"] in {"unauthorized_client", "unsupported_grant_type"}  # fmt: skip
    assert rp.introspect("x").json()["error"] == "unauthorized_client"


def test_only_audiences_for_strangers(make: Make, host: Publisher, tmp_path: Path) -> None:
    """RFC 8707 §2: a resource that is not open to strangers is `invalid_target`; one that is gives a token only for it."""
    policies = tmp_path / "policies.toml"
    table = '[audience."{}"]\nalg = "RS256"\ngrants = ["authorization_code"]\nscopes = ["read"]\n{}'
    opened, closed = "https://open.example.com", "https://closed.example.com"
    policies.write_text(table.format(opened, "strangers = true\n") + table.format(closed, ""))
    op, client_id = make(PYLON_POLICIES=str(policies)), host.publish()
    rp, browser = party(op, client_id), signed_in(op)
    for scope in (None, "openid", "read"):
        request, landing = asked(op, client_id, browser, resource=closed, scope=scope)
        assert op.answered(request, landing)["error"] == "invalid_target"
    request = rp.request(resource=opened, scope=None)
    code = op.answered(request, browser.submit(browser.go(request.url), decision="allow"))["code"]
    assert rp.redeem(request, code, resource=closed).json()["error"] == "invalid_target"
    token = rp.redeem(request, code, resource=opened).json()
    claims = unverified_claims(token["access_token"])
    assert (claims["aud"], claims["scope"], claims["client_id"]) == (opened, "read", client_id)


def test_other_clients_tokens_are_not_its_own(op: Provider, host: Publisher) -> None:
    """RFC 6749 §5.2, RFC 7009 §2.1: a code and a refresh token of another document are refused, and stay good."""
    first, second = party(op, host.publish("/1.json")), party(op, host.publish("/2.json"))
    asked(op, second.client_id)
    request = first.request(scope="openid offline_access")
    code = op.authorize(op.browser(), request)["code"]
    assert second.redeem(request, code).json()["error"] == "invalid_grant"
    tokens = first.redeem(request, code).json()
    assert second.revoke(tokens["refresh_token"]).status == 200
    assert "access_token" in first.refresh(tokens["refresh_token"]).json()


def test_the_port_of_localhost_is_not_free_for_one_with_keys(op: Provider, host: Publisher) -> None:
    """RFC 8252 §8.3: only for a public client; a different path is refused for both."""
    keyed = {"token_endpoint_auth_method": "private_key_jwt", "jwks": public("ec")}
    for path, members, status in (("/public.json", {}, 200), ("/keyed.json", keyed, 400)):
        client_id, browser = (
            host.publish(path, redirect_uris=["http://localhost/cb"], **members),
            signed_in(op),
        )
        assert asked(op, client_id, browser, redirect_uri="http://localhost/cb")[1].is_page(200)
        assert asked(op, client_id, browser, redirect_uri="http://localhost:5/cb")[1].is_page(status)
        assert asked(op, client_id, browser, redirect_uri="http://localhost:5/cb2")[1].is_page(400)


def test_it_signs_with_its_own_key(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: `private_key_jwt` with keys in the document, or at the stranger's own URL, which is fetched within the same limits."""
    for path, keys in (("/in", {"jwks": public("ec")}), ("/at", {"jwks_uri": f"{host.origin}/keys"})):
        host.at["/keys"] = public("ec")
        client_id = host.publish(path, token_endpoint_auth_method="private_key_jwt", **keys)
        request = party(op, client_id).request()
        code = op.authorize(op.browser(), request)["code"]
        text = assertion(op.clock(), client_id=client_id, aud=op.issuer)
        form = {"redirect_uri": CALLBACK, "code_verifier": request.code_verifier, "code": code, "token": None}
        unsigned = {"client_assertion_type": None, "client_id": client_id}
        assert ask(op, None, "/oidc/token", **form, **unsigned).status == 401
        assert ask(op, text, "/oidc/token", **form).status == 200


# --- when it is fetched ---


def test_a_copy_counts_as_long_as_it_is_fresh(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: draft §5.2: between 5 minutes and a day, in every process, and only authorization requests look again."""
    client_id = host.publish()

    def fetches(advance_s: int) -> int:
        before = len(host.asked)
        op.clock.advance(advance_s)
        assert asked(op, client_id)[1].is_page(200)
        return len(host.asked) - before

    assert [fetches(0), fetches(299), fetches(1)] == [1, 0, 1]
    host.cache = "max-age=7200"
    assert [fetches(300), fetches(7199), fetches(1)] == [1, 0, 1]
    host.cache = "max-age=9999999"
    assert [fetches(7200), fetches(86_399), fetches(1)] == [1, 0, 1]


def test_a_sign_in_goes_on_whatever_the_host_does(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: after a user's first request, neither the sign-in, nor consent, nor tokens fetch the document again; a new user gets an error page."""
    client_id, browser = host.publish(), op.browser()
    rp = party(op, client_id)
    request = rp.request(scope="openid offline_access")
    landing = browser.go(request.url)
    host.at.clear()
    op.clock.advance(3000)
    tokens = rp.redeem(request, op.answered(request, op.finish(browser, landing))["code"]).json()
    for _ in range(3):
        op.clock.advance(86_400 * 20)
        tokens = rp.refresh(tokens["refresh_token"]).json()
        assert rp.userinfo(tokens["access_token"]).status == 200
    assert host.asked == ["/client.json"]
    assert op.browser().go(rp.request().url).is_page(400)


def test_a_sign_in_goes_on_while_the_copy_is_renewed(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: the consent page of one user is open while another user's request fetches the same document again."""
    client_id, browser = host.publish(), signed_in(op)
    request, page = asked(op, client_id, browser)
    op.clock.advance(301)
    assert asked(op, client_id)[1].is_page(200) and len(host.asked) == 2
    assert "code" in op.answered(request, browser.submit(page, decision="allow"))


def test_a_changed_document_counts_at_the_next_look(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: what the document no longer has is refused, and existing grants are limited to it, as for every client."""
    client_id = host.publish()
    rp, browser = party(op, client_id), op.browser()
    request = rp.request(scope="openid email offline_access")
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    other = "https://rp.example.org/other"
    host.publish(redirect_uris=[other], scope="openid offline_access")
    assert asked(op, client_id, browser, prompt="none")[1].is_at(CALLBACK)
    op.clock.advance(301)
    assert asked(op, client_id, browser)[1].is_page(400)
    assert op.house.lines[-1]["cause"] == "redirect_uri_registered"
    assert rp.refresh(tokens["refresh_token"]).json()["scope"] == "openid offline_access"
    changes = [(line["what"], line["by"]) for line in op.house.lines if line["event"] == "client_changed"]
    assert changes == [("registered", "client"), ("metadata", "client")]


# --- consent ---


def test_the_page_says_from_where(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: draft §8: the host of the client id and of the redirect URI; the page shows neither a stranger's logo nor its links, only its text."""
    client_id = host.publish(
        client_name="<b>Your bank</b>", client_uri="https://bank.example/", logo_uri="https://bank.example/logo.png",
        policy_uri="https://rp.example.org/privacy",
    )  # fmt: skip
    _, page = asked(op, client_id)
    assert "<bdi>127.0.0.1</bdi> to use" in page.text and "<bdi>rp.example.org</bdi>" in page.text
    assert "&lt;b&gt;Your bank" in page.text and "<b>Your" not in page.text
    assert (
        "bank.example" not in page.text
        and "bank.example" not in page.answer.headers["Content-Security-Policy"]
    )
    assert "https://rp.example.org/privacy" in page.text
    assert "a program on this computer" not in page.text and "We will remember" in page.text
    on_device = host.publish("/tool.json", redirect_uris=["http://localhost/cb"])
    page = signed_in(op).go(party(op, on_device, redirect_uri="http://localhost:5/cb").request().url)
    assert "<bdi>localhost</bdi>" in page.text and "a program on this computer" in page.text
    assert "We will remember" not in page.text


def test_the_apps_page_is_told_from_where(make: Make, host: Publisher) -> None:
    """docs/endpoints.md: the app's page gets `origin`, and no logo of a stranger."""
    op = make(PYLON_CONSENT_URL="https://app.example.com/consent")
    _, landing = asked(op, host.publish(logo_uri="https://bank.example/logo.png"))
    shown = op.app.call("GET", f"/api/oidc/interactions/{op.app.interaction(landing)}").json()
    assert shown["client"]["logo_uri"] is None
    assert shown["origin"] == {
        "stranger": True, "client_host": "127.0.0.1", "redirect_kind": "web", "redirect_host": "rp.example.org",
        "remembered": True,
    }  # fmt: skip


def test_a_yes_is_remembered_for_what_it_was_given_to(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: another redirect host, another method, other keys: the user is asked again, and `prompt=none` is refused."""
    host.at["/keys"] = public("ec")
    elsewhere = "https://other.example.org/callback"
    keyed = {"token_endpoint_auth_method": "private_key_jwt"}
    versions: list[tuple[str, dict[str, Any], bool]] = [
        ("the same", {}, True),
        ("another name and scope", {"client_name": "Another", "scope": "openid"}, True),
        ("another path of the host", {"redirect_uris": ["https://rp.example.org/2"]}, True),
        ("another host", {"redirect_uris": [elsewhere]}, False),
        ("the first host again", {}, False),
        ("another method", keyed | {"jwks": public("ec")}, False),
        ("the same keys", keyed | {"jwks": public("ec"), "client_name": "X"}, True),
        ("other keys", keyed | {"jwks": public("ec", "okp")}, False),
        ("keys elsewhere", keyed | {"jwks_uri": f"{host.origin}/keys"}, False),
        ("keys at another place", keyed | {"jwks_uri": f"{host.origin}/keys2"}, False),
        ("keys that it does not use", {"jwks": public("ec")}, False),
        ("the first method again", {}, False),
    ]
    client_id, browser = host.publish(), signed_in(op)
    request, page = asked(op, client_id, browser)
    browser.submit(page, decision="allow")
    for name, members, remembered in versions:
        host.publish(**members)
        op.clock.advance(301)
        uri = members.get("redirect_uris", [CALLBACK])[0]
        request, landing = asked(op, client_id, browser, prompt="none", redirect_uri=uri)
        assert op.answered(request, landing).get("error") == (None if remembered else "consent_required"), (
            name
        )
        request, page = asked(op, client_id, browser, redirect_uri=uri)
        if not remembered:
            assert page.is_page(200), name
            browser.submit(page, decision="allow")


def test_a_yes_for_one_host_is_none_for_another_of_the_same_document(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: what was agreed for one redirect host is not added to what is agreed for another."""
    uris = [CALLBACK, "https://other.example.org/callback"]
    client_id, browser = host.publish(redirect_uris=uris), signed_in(op)
    _, page = asked(op, client_id, browser, scope="openid email")
    browser.submit(page, decision="allow")
    _, page = asked(op, client_id, browser, scope="openid", redirect_uri=uris[1])
    browser.submit(page, decision="allow")
    _, page = asked(op, client_id, browser, scope="openid email", redirect_uri=uris[1])
    assert page.is_page(200)


# --- limits ---


def test_one_of_a_host_at_once(op: Provider, host: Publisher) -> None:
    """docs/client-documents.md: others get an error page with `Retry-After`; a copy that was fresh a minute ago is used meanwhile."""
    client_id, browser = host.publish(), signed_in(op)
    assert asked(op, client_id, browser)[1].is_page(200)
    met, go_on = threading.Event(), threading.Event()

    def slowly(wire: socket.socket) -> None:
        met.set()
        go_on.wait(4)
        wire.sendall(host.answer("{}"))

    host.at["/slow.json"] = slowly
    slow = threading.Thread(target=lambda: asked(op, f"{host.origin}/slow.json", op.browser()))
    slow.start()
    try:
        assert met.wait(4)
        _, landing = asked(op, host.publish("/other.json"), browser)
        assert landing.is_page(503) and landing.answer.headers["Retry-After"] == "5"
        assert op.house.lines[-1]["error"] == "temporarily_unavailable"
        for advance_s, status in ((301, 200), (58, 200), (2, 503)):
            op.clock.advance(advance_s)
            assert asked(op, client_id, browser)[1].is_page(status), advance_s
    finally:
        go_on.set()
        slow.join()
    assert host.asked == ["/client.json", "/slow.json"]
    assert asked(op, client_id, browser)[1].is_page(200)


def test_slow_hosts_of_strangers_do_not_stop_a_client_that_is_in_use(
    make: Make, host: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/client-documents.md: while others hold every slot, or that of its host, a client that a user has agreed to continues with its copy for a day; nobody else does."""
    slots = Slots()
    monkeypatch.setattr(parts, "Slots", lambda: slots)
    op = make()

    def status(client_id: str) -> int:
        return asked(op, client_id, prompt="consent")[1].answer.status

    used, new = host.publish(), host.publish("/new.json")
    browser = op.browser()
    request = party(op, used).request()
    assert "code" in op.authorize(browser, request)
    assert status(new) == 200
    with ExitStack() as held:
        for name in ("a.example", "b.example", "c.example", "d.example"):
            assert held.enter_context(slots.for_stranger(name))
        for advance_s, expected in ((300 + 59, 200), (2, 503)):
            op.clock.advance(advance_s)
            assert status(new) == expected, advance_s
        assert status(used) == 200
        op.clock.advance(86_400 - 62)
        assert status(used) == 200
        op.clock.advance(1)
        assert status(used) == 503
    assert host.asked == ["/client.json", "/new.json"]
    assert status(used) == 200
    op.clock.advance(300 + 61)
    with slots.for_stranger("127.0.0.1") as is_free:
        assert is_free
        assert status(used) == 200
    assert host.asked[2:] == ["/client.json"]
    assert status(used) == 200
    assert host.asked[3:] == ["/client.json"]


def test_copies_that_nobody_used_are_few_and_go(
    op: Provider, host: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/security.md: limited for each address and in all, removed after a day; one that a user agreed to stays."""
    monkeypatch.setattr(unused, "MOST_OF_ONE_ADDRESS", 8)
    monkeypatch.setattr(unused, "LOOK_EVERY", 4)
    used = host.publish("/used.json")
    request = party(op, used).request(scope="openid offline_access")
    op.authorize(op.browser(), request)
    for number in range(40):
        op.browser().go(party(op, host.publish(f"/{number}.json")).request().url)
    assert len(_copies(op)) <= 1 + 8 + 4
    op.clock.advance(86_400 + 3600 + 1)
    open_store(op.house.settings).delete_expired(now=int(op.clock()), limit=1000)
    assert [copy["client_id"] for copy in _copies(op)] == [used]
