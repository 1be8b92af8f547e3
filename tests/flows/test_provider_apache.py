"""mod_auth_openidc, in a real Apache, protects a page through us."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from tests.flows.polling import wait_until
from tests.flows.provider_setup import Provider, Visitor, client_metadata, fresh_database
from tests.support.apache import Apache
from tests.support.app import query_of, with_query

CLIENT, SECRET = "apache", "a-secret-of-the-apache-that-the-tests-run"


@dataclass
class Pair:
    """A provider, and the Apache that is its client."""

    provider: Provider
    apache: Apache

    @property
    def page(self) -> str:
        """The protected page."""
        return f"{self.apache.origin}/protected/who.shtml"

    def sign_in(self, user_id: str) -> tuple[requests.Session, requests.Response]:
        """Open the page, sign in at the app, and come back: the browser, and the page."""
        visitor = Visitor(self.provider)
        waiting = visitor.begin(self.page)
        # With its redirects: back to Apache's callback, and on to the page.
        return visitor.http, visitor.open(self.provider.app.login(waiting, user_id))


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both, running."""
    with fresh_database(request, "sqlite") as url, Apache() as apache:
        client = client_metadata(CLIENT, SECRET, apache.origin) | {
            "redirect_uris": [apache.redirect_uri],
            "post_logout_redirect_uris": [f"{apache.origin}/out.html"],
        }
        with Provider(url, clients=lambda _: [client]) as provider:
            apache.start(provider.issuer, CLIENT, SECRET)
            yield Pair(provider, apache)


def test_the_page_is_served_to_who_signed_in(pair: Pair) -> None:
    """Apache verifies the sign-in, and gives the page its user and their claims."""
    http, page = pair.sign_in("ada")
    assert page.url == pair.page, pair.apache.output()
    for line in (
        "REMOTE_USER=ada\n",
        "NAME=ada Byron",
        "EMAIL=ada@example.com",
        f"ISSUER={pair.provider.issuer}",
    ):
        assert line in page.text
    again = http.get(pair.page, allow_redirects=False, timeout=20)
    assert (again.status_code, again.text) == (200, page.text)


def test_a_stranger_is_sent_to_sign_in(pair: Pair) -> None:
    """Without a sign-in the page is not served: PKCE, state and nonce go to the provider."""
    answer = Visitor(pair.provider).http.get(pair.page, allow_redirects=False, timeout=20)
    assert answer.status_code == 302
    asked = query_of(answer.headers["Location"])
    assert asked["client_id"] == CLIENT
    assert asked["code_challenge_method"] == "S256"
    assert "Byron" not in answer.text


def test_a_refusal_keeps_the_page_closed(pair: Pair) -> None:
    """What the app rejects comes back to Apache as an error, which shows a page of its own."""
    visitor = Visitor(pair.provider)
    redirect_to = pair.provider.app.reject(visitor.begin(pair.page))
    answer = query_of(visitor.follow(redirect_to, pair.apache.redirect_uri))
    assert answer["error"] == "access_denied"
    # mod_auth_openidc 2.4.12 takes `iss` (RFC 9207) in an error answer for a request to sign in, and refuses that.
    page = visitor.open(with_query(pair.apache.redirect_uri, answer))
    assert "Error" in page.text
    assert "REMOTE_USER" not in page.text


def test_logout_at_apache_signs_out_here(pair: Pair) -> None:
    """Its logout goes over our end-session endpoint with a hint, and back; nobody is signed in afterwards."""
    http, _ = pair.sign_in("leaver")
    assert len(pair.provider.app.sessions("leaver")) == 1
    out = f"{pair.apache.origin}/out.html"
    page = http.get(with_query(pair.apache.redirect_uri, {"logout": out}), timeout=20)
    assert page.url.startswith(out), page.text
    wait_until(lambda: pair.provider.app.sessions("leaver") == [])
    answer = http.get(pair.page, allow_redirects=False, timeout=20)
    assert answer.headers["Location"].startswith(f"{pair.provider.issuer}/oidc/authorize")
