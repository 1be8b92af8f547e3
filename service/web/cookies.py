"""Reads cookies by name, and sets them with the attributes that all of ours have.

Sibling hosts and older paths can add more values under the same name, so a name can have any number of values.

Spec: RFC 6265 §4.1, §5.4, §8.6; RFC 6265bis §4.1.2.7 (`SameSite`), §4.1.3 (`__Secure-`, `__Host-`)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final
from urllib.parse import urlsplit

import falcon

from service.issuer import issuer_path

#: How many values of one name are checked: each may cost a database query.
MOST_VALUES: Final = 4
#: How many cookies one answer deletes at most: proxies limit the size of its headers.
MOST_DROPPED: Final = 16


def cookie_values(req: falcon.Request, name: str) -> tuple[str, ...]:
    """The first four different values of a cookie, in the order in which they came."""
    return _all_values(req, name)[:MOST_VALUES]


def _all_values(req: falcon.Request, name: str) -> tuple[str, ...]:
    given = filter(None, req.get_cookie_values(name) or ())
    return tuple(dict.fromkeys(given))


def protected_name(req: falcon.Request, name: str) -> str:
    """The name of a cookie that no other host can set: `__Host-…`, or `__Secure-…` if the issuer has a path.

    With an http issuer, which is only for this machine, it is the plain name: browsers accept no prefix there.
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
    """Set a cookie, with `Secure` unless the issuer is plain http.

    Args:
        req: the request, which has the issuer.
        resp: the answer.
        name: its name.
        value: its value.
        max_age_s: its lifetime in s; 0 deletes it.
        same_site: `Lax`, `Strict` or `None`.
        domain: the domain whose hosts also get it; None for this host only.
        path: the path it is sent to; None for the issuer's path.
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
    """Delete a cookie. If the browser sends more values than are checked, delete it for every path and domain it can have.

    Otherwise a value that was not checked would be used once the others are gone.

    Args:
        req: the request.
        resp: the answer.
        name: its name.
        same_site, domain: as they were set.
        at_most: how many deletions fit into the answer.

    Returns:
        The number of deletions.
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
    """Every path and domain that a cookie of this request can have, the most likely ones first.

    Spec: RFC 6265 §5.1.3, §5.1.4
    """
    segments = req.path.strip("/").split("/")
    paths = ["/", *("/" + "/".join(segments[:n]) for n in range(1, len(segments) + 1))]
    host = urlsplit(req.context.issuer).hostname or ""
    labels = [] if ":" in host or host.rpartition(".")[2].isdecimal() else host.split(".")
    # Start with the domain that most hosts share; a single label is not a domain.
    domains = [".".join(labels[-n:]) for n in range(2, len(labels) + 1)]
    for path, domain in product(reversed(paths), [*domains, None]):
        yield path, domain
    for path, domain in product(paths[1:-1], [*domains, None]):
        yield f"{path}/", domain
