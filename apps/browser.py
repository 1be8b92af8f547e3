"""As much of a browser as sign-in pages need: cookies, redirects, forms, and the forms that post themselves."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

_STEPS = 30
_SUBMITS_ITSELF = re.compile(r"\.submit\(\)|onload=")


@dataclass
class Form:
    """A form of a page: where it goes, and what is filled in already."""

    action: str
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(html.parser.HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.forms, self.links = url, [], []  # type: ignore[var-annotated]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(
                Form(urljoin(self.url, given.get("action", "")), given.get("method", "get").lower())
            )
        if tag == "a" and "href" in given:
            self.links.append(urljoin(self.url, given["href"]))
        filled = given.get("type") not in {"checkbox", "radio", "submit"} or "checked" in given
        if tag == "input" and self.forms and given.get("name") and filled:
            self.forms[-1].fields[given["name"]] = given.get("value", "")


@dataclass
class Page:
    """Where a browser came to rest."""

    url: str
    status: int
    text: str

    def __post_init__(self) -> None:
        reader = _Reader(self.url)
        reader.feed(self.text)
        self.forms: list[Form] = reader.forms
        self.links: list[str] = reader.links

    def json(self) -> Any:
        """The page, where it is JSON."""
        return json.loads(self.text)

    def form(self, *fields: str) -> Form:
        """The form that has these fields."""
        for found in self.forms:
            if set(fields) <= set(found.fields):
                return found
        raise AssertionError(f"no form with {fields} at {self.url}: {self.text[:2000]}")

    def link(self, part: str) -> str:
        """The link that has this in its address."""
        for found in self.links:
            if part in found:
                return found
        raise AssertionError(f"no link with {part} at {self.url}: {self.text[:2000]}")


class Browser:
    """One person's browser.

    Args:
        issuer: the provider, whose pages it fills in as this user.
        user: who is in front of it; None: somebody who leaves sign-in pages as they are.
    """

    def __init__(self, issuer: str, user: str | None = "ada") -> None:
        self.issuer, self.user = issuer, user
        self.http = requests.Session()
        self.http.trust_env = False
        if issuer.startswith("https://"):  # with a certificate of the test's own
            self.http.verify = False
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.http.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) Chrome/130"
        self.trail: list[str] = []

    def open(self, url: str, form: Mapping[str, str] | None = None, method: str = "post") -> Page:
        """Open an address, or send a form there, and go where one is sent; sign in and agree where one is asked."""
        for _ in range(_STEPS):
            page, url_next = self._ask(url, form, method)
            if url_next is not None:
                url, form = url_next, None
                continue
            answered = self._answered(page)
            if answered is None:
                return page
            url, form, method = answered.action, answered.fields, answered.method
        raise AssertionError("one is sent around and around: " + " ".join(self.trail[-_STEPS:]))

    def submit(self, form: Form, **fields: str) -> Page:
        """Fill a form in, and send it."""
        return self.open(form.action, form.fields | fields, form.method)

    def _ask(self, url: str, form: Mapping[str, str] | None, method: str) -> tuple[Page, str | None]:
        where = urlsplit(url)
        headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        if form is not None and method == "post":
            headers["Origin"] = f"{where.scheme}://{where.netloc}"
            headers["Referer"] = self.trail[-1] if self.trail else url
        self.trail.append(url)
        if form is None or method == "get":
            answer = self.http.get(url, params=form, headers=headers, allow_redirects=False, timeout=60)
        else:
            answer = self.http.post(url, data=form, headers=headers, allow_redirects=False, timeout=60)
        for cookie in self.http.cookies:  # browsers send `Secure` cookies to localhost over http too
            cookie.secure = False
        if answer.is_redirect:
            return Page(url, answer.status_code, ""), urljoin(url, answer.headers["Location"])
        return Page(answer.url, answer.status_code, answer.text), None

    def _answered(self, page: Page) -> Form | None:
        """What this person does on a page of the provider's, or what a page does by itself."""
        if page.url.startswith(f"{self.issuer}/"):
            for form in page.forms:
                if "user_id" in form.fields:
                    if self.user is None:
                        return None
                    return Form(form.action, "post", form.fields | {"user_id": self.user})
                if "form_token" in form.fields:
                    return Form(form.action, "post", form.fields | {"decision": "allow"})
        if len(page.forms) == 1 and page.status == 200 and _SUBMITS_ITSELF.search(page.text):
            form = page.forms[0]
            return form if form.method == "post" else None
        return None

    def is_signed_in(self) -> bool:
        """Whether the provider knows who is in front of this browser."""
        return self.http.get(f"{self.issuer}/api/auth/me", timeout=20).status_code == 200
