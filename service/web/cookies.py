"""Cookies: read with one value, set with the attributes that all of ours have.

Spec: RFC 6265 §4.1, RFC 6265bis §4.1.2.7 (`SameSite`)
"""

from __future__ import annotations

import falcon

from service.issuer import issuer_path


def one_cookie(req: falcon.Request, name: str) -> str | None:
    """The value of a cookie; None without it, or where it comes with two values."""
    values = set(req.get_cookie_values(name) or ())
    return values.pop() if len(values) == 1 else None


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
