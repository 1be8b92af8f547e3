"""Cookies: read by name, set with the attributes that all of ours have.

A sibling host and a leftover of an older path can put more values beside ours: a name has any number of them.

Spec: RFC 6265 §4.1, §5.4, §8.6; RFC 6265bis §4.1.2.7 (`SameSite`), §4.1.3 (`__Secure-`, `__Host-`)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final
from urllib.parse import urlsplit

import falcon

from service.issuer import issuer_path

#: So many values of one name are looked at: each may cost a question to the database.
MOST_VALUES: Final = 4
#: So many cookies an answer takes away at most: proxies give its header so much room.
MOST_DROPPED: Final = 16


def cookie_values(req: falcon.Request, name: str) -> tuple[str, ...]:
    """The values of a cookie, each once, in the order in which they came; the first four."""
    return _all_values(req, name)[:MOST_VALUES]


def _all_values(req: falcon.Request, name: str) -> tuple[str, ...]:
    given = filter(None, req.get_cookie_values(name) or ())
    return tuple(dict.fromkeys(given))


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
    path: str | None = None,
) -> None:
    """Give the browser a cookie; `Secure` unless the issuer itself is plain http.

    Args:
        req: the request, whose issuer it is for.
        resp: the answer.
        name: its name.
        value: what it holds.
        max_age_s: for how long, in s; 0 takes it away.
        same_site: `Lax`, `Strict` or `None`.
        domain: who gets it besides this host; None means nobody.
        path: for which paths; None means the issuer's.
    """
    issuer = req.context.issuer
    path = path or issuer_path(issuer) or "/"
    parts = [f"{name}={value}", f"Path={path}", f"Max-Age={max_age_s}", "HttpOnly"]
    if domain is not None:
        parts.append(f"Domain={domain}")
    if not issuer.startswith("http:"):
        parts.append("Secure")
    resp.append_header("Set-Cookie", "; ".join([*parts, f"SameSite={same_site}"]))


def drop_cookie(
    req: falcon.Request,
    resp: falcon.Response,
    name: str,
    *,
    same_site: str = "Lax",
    domain: str | None = None,
    at_most: int = MOST_DROPPED,
) -> int:
    """Take a cookie from the browser; where it shows more values than are looked at, from every place they can be at.

    Else one that was not looked at would count when the others are gone.

    Args:
        req: the request.
        resp: the answer.
        name: its name.
        same_site, domain: as it was set.
        at_most: how many deletions the answer has room for.

    Returns:
        How many there are.
    """
    set_cookie(req, resp, name, "", max_age_s=0, same_site=same_site, domain=domain)
    if len(_all_values(req, name)) <= MOST_VALUES:
        return 1
    own = (issuer_path(req.context.issuer) or "/", domain)
    others = [place for place in _places(req) if place != own][: at_most - 1]
    for path, of in others:
        set_cookie(req, resp, name, "", max_age_s=0, same_site=same_site, domain=of, path=path)
    return 1 + len(others)


def _places(req: falcon.Request) -> Iterator[tuple[str, str | None]]:
    """Every path and domain of a cookie that this request shows; those that somebody would choose come first.

    Spec: RFC 6265 §5.1.3, §5.1.4
    """
    segments = req.path.strip("/").split("/")
    paths = ["/", *("/" + "/".join(segments[:n]) for n in range(1, len(segments) + 1))]
    host = urlsplit(req.context.issuer).hostname or ""
    labels = [] if ":" in host or host.rpartition(".")[2].isdecimal() else host.split(".")
    # From the one that is shared by most; a single label is nobody's domain.
    domains = [".".join(labels[-n:]) for n in range(2, len(labels) + 1)]
    for path, domain in product(reversed(paths), [*domains, None]):
        yield path, domain
    for path, domain in product(paths[1:-1], [*domains, None]):
        yield f"{path}/", domain
