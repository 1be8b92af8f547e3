"""Cookies: read by name, set with the attributes that all of ours have.

A sibling host and a leftover of an older path can put more values beside ours: a name has any number of them.

Spec: RFC 6265 §4.1, §5.4, §8.6; RFC 6265bis §4.1.2.7 (`SameSite`), §4.1.3 (`__Secure-`, `__Host-`)
"""

from __future__ import annotations

from typing import Final

import falcon

from service.issuer import issuer_path

#: So many values of one name are looked at: each may cost a question to the database.
MOST_VALUES: Final = 4


def cookie_values(req: falcon.Request, name: str) -> tuple[str, ...]:
    """The values of a cookie, each once, in the order in which they came; the first four."""
    given = filter(None, req.get_cookie_values(name) or ())
    return tuple(dict.fromkeys(given))[:MOST_VALUES]


def protected_name(req: falcon.Request, name: str) -> str:
    """The name of a cookie that no other host can set: `__Host-…`, at an issuer with a path `__Secure-…`.

    At an http issuer, which is this machine's own, it is the plain name: browsers take no prefix there.
    """
    issuer = req.context.issuer
    if issuer.startswith("http:"):
        return name
    return f"__Secure-{name}" if issuer_path(issuer) else f"__Host-{name}"


def set_cookie(
    req: falcon.Request,
    resp: falcon.Response,
    name: str,
    value: str,
    *,
    max_age_s: int,
    same_site: str = "Lax",
    domain: str | None = None,
) -> None:
    """Give the browser a cookie for the issuer's path; `Secure` unless the issuer itself is plain http.

    Args:
        req: the request, whose issuer it is for.
        resp: the answer.
        name: its name.
        value: what it holds.
        max_age_s: for how long, in s; 0 takes it away.
        same_site: `Lax`, `Strict` or `None`.
        domain: who gets it besides this host; None means nobody.
    """
    issuer = req.context.issuer
    parts = [f"{name}={value}", f"Path={issuer_path(issuer) or '/'}", f"Max-Age={max_age_s}", "HttpOnly"]
    if domain is not None:
        parts.append(f"Domain={domain}")
    if not issuer.startswith("http:"):
        parts.append("Secure")
    resp.append_header("Set-Cookie", "; ".join([*parts, f"SameSite={same_site}"]))
