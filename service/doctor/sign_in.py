"""A whole sign-in, as a browser, the app's backend and the client do it together; afterwards it is undone."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from service.doctor.asking import FORM, Asker
from service.doctor.evidence import USER, UnverifiedToken, at_origin
from service.doctor.reply import Reply
from service.handles import new_handle

_MOST_HOPS: Final = 4
#: The names of the steps, for people.
STEPS: Final[Mapping[str, str]] = {
    "authorize": "the beginning of the sign-in (/oidc/authorize)",
    "login": "the report of the sign-in (POST /api/oidc/interactions/…/login, asked inside)",
    "return": "the browser's way back after the sign-in (/oidc/interaction/…)",
    "consent": "the report of the consent (POST /api/oidc/interactions/…/consent, asked inside)",
    "code": "the redirect with the code, after the consent (/oidc/interaction/…)",
    "token": "the exchange of the code (/oidc/token)",
    "userinfo": "the question who signed in (/oidc/userinfo)",
}


class SignIn:
    """Requests of one client, with one PKCE verifier.

    Args:
        asker: sends them.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker, self._options = asker, asker.options
        self._verifier = new_handle()
        self._cookies: dict[str, str] = {}

    def begin(self, **parameters: str) -> str:
        """Path and query of an authorization request."""
        digest = hashlib.sha256(self._verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._options.client_id or "",
            "redirect_uri": self._options.redirect_uri or "",
            "scope": "openid",
            "state": "doctor",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{self._asker.path}/oidc/authorize?{urlencode(asked | parameters)}"

    def redeem(self, code: str) -> Reply:
        """Exchange a code.

        Raises:
            WireError: if there was no answer.
        """
        options = self._options
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": options.redirect_uri or "",
            "code_verifier": self._verifier,
        }
        headers = [FORM]
        if options.client_secret is None:
            form["client_id"] = options.client_id or ""
        else:
            basic = f"{quote(options.client_id or '', safe='')}:{quote(options.client_secret, safe='')}"
            headers.append(("Authorization", f"Basic {base64.b64encode(basic.encode()).decode()}"))
        return self._asker.post(f"{self._asker.path}/oidc/token", urlencode(form).encode(), *headers)()

    def run(self, begun: Reply) -> dict[str, Any]:
        """The steps from the redirect to the sign-in page; returns what the evidence needs.

        Raises:
            WireError: if there was no answer.
        """
        interaction = query_of(begun.location, "interaction")
        self._keep_cookies(begun)
        if begun.status != 303 or not interaction or not self._cookies:
            return _stopped("authorize", begun)
        report = f"/api/oidc/interactions/{quote(interaction, safe='')}"
        told = self._asker.as_admin("POST", f"{report}/login", {"user_id": USER})
        back = self._back(told)
        if back is None:
            return _stopped("login", told)
        finished = self._followed(back)
        code = query_of(finished.location, "code")
        if code is None and self._waits_for_consent(finished, report):
            told = self._asker.as_admin("POST", f"{report}/consent", {"remember": False})
            back = self._back(told)
            if back is None:
                return {"flow": {"stopped": f"{told.status} {told.code} to the report of a consent"}}
            finished = self._followed(back)
            code = query_of(finished.location, "code")
            if code is None:
                return _stopped("code", finished)
        if code is None:
            self._asker.together({"return-inside": lambda: self._asker.inside("GET", back, self._sent())})
            return _stopped("return", finished)
        return self._with_tokens(code)

    def _back(self, told: Reply) -> str | None:
        """Where the browser goes next: an address of this service, or None."""
        return at_origin(told.json_object().get("redirect_to"), self._asker.origin)

    def _waits_for_consent(self, finished: Reply, report: str) -> bool:
        """Whether the user is asked for consent: on this page, or on the app's own."""
        is_page = finished.status == 200 or bool(query_of(finished.location, "interaction"))
        return is_page and self._asker.as_admin("GET", report).json_object().get("step") == "consent"

    def _followed(self, target: str) -> Reply:
        """Go there as a browser does, and follow redirects to pages of interactions here."""
        for _ in range(_MOST_HOPS):
            reply = self._asker.get(target, *self._sent())()
            self._keep_cookies(reply)
            onward = at_origin(reply.location, self._asker.origin)
            if onward is None or not onward.startswith(f"{self._asker.path}/oidc/interaction/"):
                break
            target = onward
        return reply

    def _sent(self) -> list[tuple[str, str]]:
        return [("Cookie", "; ".join(f"{name}={value}" for name, value in self._cookies.items()))]

    def _keep_cookies(self, reply: Reply) -> None:
        for cookie in reply.all("set-cookie"):
            name, _, value = cookie.partition(";")[0].strip().partition("=")
            if re.search(r"; *max-age=0\b", cookie, re.IGNORECASE):
                self._cookies.pop(name, None)
            else:
                self._cookies[name] = value

    def _with_tokens(self, code: str) -> dict[str, Any]:
        reply = self.redeem(code)
        answer = reply.json_object()
        if reply.status != 200:
            return _stopped("token", reply)
        bearer = ("Authorization", f"Bearer {answer.get('access_token')}")
        told = self._asker.get(f"{self._asker.path}/oidc/userinfo", bearer)()
        if told.json_object().get("sub") != USER:
            return _stopped("userinfo", told)
        return {
            "flow": {"done": ""},
            "id_token": UnverifiedToken.read(answer.get("id_token"), reply.received_at),
        }


def _stopped(step: str, reply: Reply) -> dict[str, Any]:
    """What was seen at a step that went wrong: the answer, and the request id under which the service's log has it."""
    error = reply.json_object().get("error")
    words = [str(reply.status), reply.code or (error if isinstance(error, str) else "")]
    if reply.location:
        words.append(f"to {without_query(reply.location)}")
    told = " ".join(word for word in words if word)
    request_id = reply.header("x-request-id")
    return {"flow": {step: f"{told}; request id {request_id}" if request_id else told}}


def without_query(url: str) -> str:
    """An address without its query, which may contain codes."""
    return url.partition("?")[0].partition("#")[0]


def query_of(url: str, name: str) -> str | None:
    """A parameter of an address; None if it is missing, or repeated."""
    try:
        values = parse_qs(urlsplit(url).query).get(name, [])
    except ValueError:
        return None
    return values[0] if len(values) == 1 and values[0].isascii() else None
