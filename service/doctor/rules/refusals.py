"""Whether something in between refuses requests that the service would answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from service.doctor.catalogue import Finding
from service.doctor.evidence import AGENTS, Evidence
from service.doctor.reply import Reply, WireError
from service.doctor.rules.reading import found, is_oauth_error, is_own, without_query

#: Public requests, and their names for people. The service answers none of them with 403, 407, 429 or 451.
_PUBLIC: Final = {
    "discovery": "discovery",
    "oauth": "discovery",
    "jwks": "the keys",
    "token": "the token endpoint",
    "token-probe": "the token endpoint",
    "client": "the token endpoint",
    "userinfo": "the userinfo endpoint",
    "userinfo-bare": "the userinfo endpoint",
    "revocation": "the revocation endpoint",
    "authorization": "the authorization endpoint",
    "unknown-client": "the authorization endpoint",
    "authorize": "the authorization endpoint",
    "silent": "the authorization endpoint",
    "end_session": "the logout endpoint",
    "mint": "/api/auth/jwt",
}
_SIGNS_IN: Final = re.compile(
    r"log-?_?in|sign-?_?in|\bsso\b|saml|adfs|oauth2/(?:start|auth|sign_in)|cdn-cgi/access|captcha|challenge|\bauth\b|authn"
    r"|accounts?\.|portal",
    re.IGNORECASE,
)
_COMES_BACK: Final = re.compile(
    r"next|rd|url|uri|return|redirect|target|continue|goto|state|from|service", re.IGNORECASE
)


#: Refusals that may be the service's own, unless discovery is refused in the same way.
_PERHAPS: Final = "token"
_PERHAPS_CERTIFICATE: Final = "certificate"


@dataclass(frozen=True)
class _Refusal:
    """A refusal by somebody else.

    Attributes:
        variant: its case.
        words: what the answer shows.
    """

    variant: str
    words: str


def refusals(e: Evidence) -> Iterator[Finding]:
    """Only the service refuses: there is no password, list, limit, certificate or sign-in page in between."""
    if (refused := _refused_program(e)) is not None:
        yield refused
        return
    met: dict[_Refusal, set[str]] = {}
    asked = set()
    for name, answer in e.answers.items():
        public = _PUBLIC.get(name) or _PUBLIC.get(name.rpartition("-")[0])
        if public is None:
            continue
        asked.add(public)
        refusal = _refusal(e, name, answer)
        if refusal is not None:
            met.setdefault(refusal, set()).add(public)
    met = {
        refusal: where
        for refusal, where in met.items()
        if refusal.variant not in {_PERHAPS, _PERHAPS_CERTIFICATE} or "discovery" in where
    }
    if not met or e.error("discovery") is not None:
        return
    refusal, where = max(met.items(), key=lambda item: len(item[1]))
    is_everywhere = "discovery" in where or where == asked
    at = "every address that was asked" if is_everywhere else ", ".join(sorted(where))
    variant = refusal.variant if is_everywhere or refusal.variant == "rate" else f"{refusal.variant}-here"
    endpoint = e.endpoint("token_endpoint") if where == {"the token endpoint"} else None
    yield found(e, "refused-by-proxy", f"{refusal.words}, at {at}", variant=variant, endpoint=endpoint or "")


def _refused_program(e: Evidence) -> Finding | None:
    """A program is refused because of its name, while another one gets an answer."""
    keys = e.replies("jwks")
    if not keys or any(reply.status != 200 for reply in keys):
        return None
    for name in AGENTS:
        answer = e.answers.get(f"agent {name}")
        closed = isinstance(answer, WireError) and answer.kind == "closed"
        if closed or (isinstance(answer, Reply) and answer.status in {403, 406}):
            how = answer.status if isinstance(answer, Reply) else "no answer"
            return found(
                e, "refused-by-proxy", f"{how} to a program named {name}, at the keys", variant="agent"
            )
    return None


def _refusal(e: Evidence, name: str, answer: Reply | WireError) -> _Refusal | None:
    if isinstance(answer, WireError):
        return _Refusal("certificate", answer.detail) if answer.kind == "client-certificate" else None
    # The shipped site refuses in the shapes of the service, which itself has no such statuses at these addresses.
    in_its_shape = answer.status == 429 or (answer.status == 403 and is_oauth_error(answer))
    if (is_own(answer) and not in_its_shape) or _is_emptied(answer):
        return None
    if answer.location:
        return _sent_to_sign_in(e, name, answer)
    return next((found for look in _LOOKS if (found := look(answer)) is not None), None)


def _is_emptied(reply: Reply) -> bool:
    """Whether it is the service's own 401 with a body that somebody replaced: that is another finding."""
    told = reply.header("www-authenticate")
    return reply.status == 401 and ("invalid_token" in told or 'realm="pylon-oidc"' in told)


def _wants_certificate(reply: Reply) -> _Refusal | None:
    if reply.status != 400:
        return None
    if b"SSL certificate" in reply.body:
        return _Refusal("certificate", "400, a client certificate is required")
    # The shipped site says no more; doctor's requests are well-formed.
    by_site = reply.code == "PROXY_REFUSED"
    return (
        _Refusal(_PERHAPS_CERTIFICATE, "400, as without a client certificate (ssl_verify_client)")
        if by_site
        else None
    )


def _challenges(reply: Reply) -> _Refusal | None:
    by_cloudflare = reply.status == 503 and reply.header("server").lower() == "cloudflare"
    if not reply.header("cf-mitigated") and not by_cloudflare:
        return None
    return _Refusal("challenge", f"{reply.status}, a challenge of Cloudflare for browsers")


def _wants_password(reply: Reply) -> _Refusal | None:
    if reply.status != 401:
        return None
    scheme = reply.header("www-authenticate").partition(" ")[0]
    if scheme.lower() in {"", "bearer"}:
        return _Refusal(_PERHAPS, f"401, asks for {scheme or 'a sign-in'}")
    return _Refusal("password", f"401, asks for a password ({scheme})")


def _limits(reply: Reply) -> _Refusal | None:
    return _Refusal("rate", "429, too many requests") if reply.status == 429 else None


def _denies(reply: Reply) -> _Refusal | None:
    is_denied = reply.status in {403, 407, 451, 511}
    return _Refusal("denied", f"{reply.status} {reply.media_type}".strip()) if is_denied else None


_LOOKS: Final = (_wants_certificate, _challenges, _wants_password, _limits, _denies)


def _sent_to_sign_in(e: Evidence, name: str, reply: Reply) -> _Refusal | None:
    """A redirect to a sign-in page, which the service never sends to a program from these addresses."""
    if name not in {"discovery", "oauth", "jwks", "token", "token-probe", "userinfo"}:
        return None
    try:
        parts = urlsplit(reply.location)
        query = parse_qsl(parts.query)
    except ValueError:
        return None
    is_same = parts.path.rstrip("/").endswith(e.options.path + "/.well-known/openid-configuration")
    comes_back = any(
        _COMES_BACK.fullmatch(k.rpartition("_")[0] or k) and ("/" in v or "%2F" in v) for k, v in query
    )
    if is_same or not (
        comes_back or _SIGNS_IN.search(f"{parts.netloc}{parts.path}".replace(e.options.origin.host, ""))
    ):
        return None
    return _Refusal("sign-in", f"{reply.status} to {without_query(reply.location)}")
