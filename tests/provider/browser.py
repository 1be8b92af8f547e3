"""A browser over WebTest: a cookie jar, redirects within the issuer, and the forms of pages."""

from __future__ import annotations

import html.parser
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tests.http.driver import House
from tests.support.gunicorn import Answer

FORM: Final = "application/x-www-form-urlencoded"
_MOST_STEPS: Final = 12


def query_of(url: str) -> dict[str, str]:
    """The query of an address."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


@dataclass
class Cookie:
    """One cookie, as the browser keeps it."""

    name: str
    value: str
    path: str
    expires_at: float
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def goes_to(self, path: str) -> bool:
        """Whether it is sent to this path (RFC 6265 §5.1.4)."""
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")


class _Forms(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            self.action = values.get("action") or ""
        if tag == "input" and values.get("name"):
            self.fields[str(values["name"])] = values.get("value") or ""


@dataclass
class Landing:
    """Where a browser came to rest: a page of the provider's, or an address elsewhere that was not opened."""

    url: str
    answer: Answer

    @property
    def parameters(self) -> dict[str, str]:
        """The query of the address, or the fields of the form_post page."""
        return self.fields if self.answer.status == 200 else query_of(self.url)

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the page's form."""
        return self._forms.fields

    @property
    def action(self) -> str:
        """Where the page's form goes; empty without a form."""
        return self._forms.action

    @property
    def text(self) -> str:
        """The page."""
        return self.answer.body.decode()

    @property
    def _forms(self) -> _Forms:
        forms = _Forms()
        forms.feed(self.text)
        return forms

    def is_at(self, url: str) -> bool:
        """Whether the browser was sent to this address, whatever its query."""
        return self.answer.status == 303 and self.url.partition("?")[0] == url

    def is_page(self, status: int = 200) -> bool:
        """Whether it rests on a page of the provider's."""
        kind = self.answer.headers.get("Content-Type", "")
        return (
            self.answer.status == status
            and kind == "text/html; charset=utf-8"
            and "Location" not in self.answer.headers
        )


class Browser:
    """Keeps cookies by path, security and age, and follows redirects within the issuer."""

    def __init__(self, house: House, issuer: str) -> None:
        self._house = house
        self.issuer = issuer
        self.cookies: dict[tuple[str, str], Cookie] = {}
        self.seen: list[tuple[str, Answer]] = []

    def set_cookie(self, name: str, value: str, *, path: str = "/", max_age_s: float = 86_400) -> None:
        """A cookie from elsewhere, as the app's under a shared domain."""
        self.cookies[name, path] = Cookie(name, value, path, self._house.clock() + max_age_s)

    def cookie_names(self, prefix: str = "") -> list[str]:
        """The names of the live cookies that begin so."""
        now = self._house.clock()
        return [
            cookie.name
            for cookie in self.cookies.values()
            if cookie.expires_at > now and cookie.name.startswith(prefix)
        ]

    def ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, cross_site: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request to the issuer. A POST from another site carries no `Lax` cookie."""
        parts, now = urlsplit(url), self._house.clock()
        held = [
            cookie
            for cookie in self.cookies.values()
            if cookie.expires_at > now and cookie.goes_to(parts.path)
        ]
        header = "; ".join(f"{cookie.name}={cookie.value}" for cookie in held)
        answer = self._house.ask(
            method,
            unquote(parts.path),
            host=parts.netloc,
            query=parts.query,
            body=None if form is None else urlencode(form).encode(),
            content_type=None if form is None else FORM,
            cookie=header if header and not (cross_site and method == "POST") else None,
            headers=headers,
        )
        for line in answer.headers.all("Set-Cookie"):
            self._keep(line)
        self.seen.append((url, answer))
        return answer

    def _keep(self, line: str) -> None:
        (morsel,) = SimpleCookie(line).values()
        path = morsel["path"] or "/"
        assert morsel["secure"] or self.issuer.startswith("http:"), line
        attributes = {name: value for name, value in morsel.items() if value}
        expires_at = self._house.clock() + int(morsel["max-age"])
        self.cookies[morsel.key, path] = Cookie(morsel.key, morsel.value, path, expires_at, attributes)

    def go(
        self, url: str, *, form: Mapping[str, str] | None = None, cross_site: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Landing:  # fmt: skip
        """Open an address, or post a form to it, and follow every redirect that stays at the issuer."""
        answer = self.ask(
            "GET" if form is None else "POST", url, form=form, cross_site=cross_site, headers=headers
        )
        # Where the first request came from counts for the redirects after it (Fetch Metadata §2.4).
        carried = {name: value for name, value in (headers or {}).items() if name == "Sec-Fetch-Site"}
        for _ in range(_MOST_STEPS):
            location = answer.headers.get("Location")
            if location is None:
                return Landing(url, answer)
            if not location.startswith(f"{self.issuer}/"):
                return Landing(location, answer)
            url, answer = location, self.ask("GET", location, headers=carried)
        raise AssertionError(f"too many redirects, at {url}")

    def submit(self, landing: Landing, **fields: str) -> Landing:
        """Press a button of the page's form."""
        return self.go(
            landing.action, form=landing.fields | fields, headers={"Sec-Fetch-Site": "same-origin"}
        )
