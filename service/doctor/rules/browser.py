"""What browsers need: CORS, cookies, redirects, security headers, and a sign-in page that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from service.doctor.catalogue import Finding
from service.doctor.evidence import NOBODY, Evidence
from service.doctor.reply import Reply
from service.doctor.rules.reading import (
    cookie_is_lost,
    found,
    is_own,
    is_own_page,
    query_of,
    without_query,
)

_OPEN: Final = ("discovery", "jwks", "token", "userinfo")
_PREFLIGHTS: Final = ("discovery-options", "token-options", "userinfo-options")


def cors(e: Evidence) -> Iterator[Finding]:
    """Scripts of any origin may read answers for which no cookie counts; the header is there once, also on preflights."""
    if e.issuer is None:
        return
    given = {name: reply.all("access-control-allow-origin") for name in _OPEN if (reply := e.reply(name))}
    doubled = [name for name, values in given.items() if len(values) > 1 or any("," in v for v in values)]
    if doubled:
        yield found(e, "cors-doubled", f"twice at {', '.join(doubled)}")
    if not e.is_ours:
        return
    missing = [name for name, values in given.items() if not values]
    others = {
        name: values[0] for name, values in given.items() if len(values) == 1 and not _allows(values[0])
    }
    asked = {name: e.reply(name) for name in _PREFLIGHTS}
    unanswered = [
        f"OPTIONS {name.removesuffix('-options')}"
        for name, reply in asked.items()
        if reply is not None and reply.status in {200, 204} and not _lets_ask(reply)
    ]
    if missing:
        yield found(
            e, "cors-missing", f"no Access-Control-Allow-Origin at {', '.join(missing)}", variant="hidden"
        )
    elif others:
        name, value = next(iter(others.items()))
        seen = f"Access-Control-Allow-Origin: {value} at {name}, instead of *"
        yield found(e, "cors-missing", seen, variant="changed")
    elif unanswered:
        seen = f"a preflight without what it asks for (Access-Control-Allow-Origin, -Headers): {', '.join(unanswered)}"
        yield found(e, "cors-missing", seen, variant="preflight")


def _allows(value: str) -> bool:
    return value.strip() in {"*", f"https://{NOBODY}"}


def _lets_ask(reply: Reply) -> bool:
    """Whether a browser continues after this answer to its preflight (Fetch §4.8)."""
    headers = {name.strip().lower() for name in reply.header("access-control-allow-headers").split(",")}
    return _allows(reply.header("access-control-allow-origin")) and "authorization" in headers


def cookies(e: Evidence) -> Iterator[Finding]:
    """The cookie that binds a sign-in to its browser arrives as it was set, and is passed to the service."""
    reply = e.reply("authorize")
    if reply is None or reply.status != 303 or query_of(reply.location, "interaction") is None:
        return
    given, sent = _cookie(reply), _cookie(e.reply("authorize-inside"))
    if given is None:
        yield found(
            e, "cookies-stripped", "no Set-Cookie of the service where a sign-in begins", variant="answer"
        )
        return
    if cookie_is_lost(e):
        seen = "a sign-in cannot continue: 400 to a browser that sends its Cookie; inside, the same request works"
        yield found(e, "cookies-stripped", seen, variant="request")
        return
    wanted = sent or _usual(e)
    changed = [
        _told(name, given.get(name), wanted.get(name))
        for name in ("secure", "httponly", "samesite", "path", "domain")
        if given.get(name) != wanted.get(name)
    ]
    if changed:
        yield found(e, "cookies-rewritten", "; ".join(changed), variant=_case(given, wanted))


def _usual(e: Evidence) -> dict[str, str]:
    """The attributes that the service gives its cookies, as far as they can be seen from outside."""
    secure = {"secure": ""} if e.options.origin.scheme == "https" else {}
    return {"httponly": "", "samesite": "lax", "path": e.options.path or "/", **secure}


def _cookie(reply: Reply | None) -> dict[str, str] | None:
    """The attributes of the interaction's cookie; None without one. Cookies of others, such as a load balancer, are ignored."""
    for value in [] if reply is None else reply.all("set-cookie"):
        name, *attributes = value.split(";")
        if "pylon_interaction" not in name.partition("=")[0]:
            continue
        pairs = [part.strip().partition("=") for part in attributes]
        told = {key.strip().lower(): word.strip() for key, _, word in pairs}
        return {
            k: v.lower() if k == "samesite" else v for k, v in told.items() if k not in {"max-age", "expires"}
        }
    return None


def _told(name: str, given: str | None, wanted: str | None) -> str:
    attribute = {"httponly": "HttpOnly", "samesite": "SameSite"}.get(name, name.capitalize())
    if given is None:
        return f"without {attribute}"
    if wanted is None:
        return f"with {attribute}={given}" if given else f"with {attribute}"
    return f"{attribute}={given}, which should be {wanted}"


def _case(given: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The directive that changes it: for the path, for the domain, or for the flags."""
    if given.get("path") != wanted.get("path"):
        return "path"
    return "domain" if given.get("domain") != wanted.get("domain") else "flags"


def redirects(e: Evidence) -> Iterator[Finding]:
    """Redirects arrive as the service sent them."""
    outside, inside = e.reply("authorize"), e.reply("authorize-inside")
    if outside is None or inside is None:
        return
    here = without_query(inside.location)
    told = {
        without_query(reply.location) for reply in e.replies("authorize") if reply.status == inside.status
    }
    if here and told == {""}:
        yield found(e, "redirects-rewritten", f"no Location; the service said {here}", variant="hidden")
    elif told and here not in told:
        yield found(
            e, "redirects-rewritten", f"{sorted(told)[0]}; the service said {here}", variant="changed"
        )


def sign_in_page(e: Evidence) -> Iterator[Finding]:
    """There is a sign-in page where users are sent, if that is at this address."""
    reply, begun = e.reply("login-page"), e.reply("authorize")
    if reply is not None and begun is not None and reply.status >= 400:
        where = without_query(begun.location)
        yield found(e, "login-page-missing", f"{reply.status} at {where}, where users are sent to sign in")


def security_headers(e: Evidence) -> Iterator[Finding]:
    """Browsers must use only https, and must not guess media types."""
    probe, page = e.reply("probe"), e.reply("authorization")
    if probe is None or not e.is_reached:
        return
    hsts = probe.header("strict-transport-security")
    if e.options.origin.scheme == "https" and not hsts:
        yield found(e, "security-headers-missing", "no Strict-Transport-Security", variant="not-added")
    elif e.options.origin.scheme == "https" and re.search(
        r"max-age *= *\"?0+\"?(?:$|[;,\s])", hsts, re.IGNORECASE
    ):
        yield found(e, "security-headers-missing", f"Strict-Transport-Security: {hsts}", variant="zero")
    elif not probe.header("x-content-type-options"):
        yield found(e, "security-headers-missing", "no X-Content-Type-Options", variant="hidden")
    elif (
        page is not None and is_own_page(page) and is_own(page) and not page.header("content-security-policy")
    ):
        yield found(e, "security-headers-missing", "no Content-Security-Policy on pages", variant="policy")
