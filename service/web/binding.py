"""Binds what waits to the browser that began it: a cookie for each, of which only a hash is kept.

Spec: RFC 9700 §4.7
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import falcon

from service.web.cookies import MOST_DROPPED, cookie_values, protected_name, set_cookie

_COOKIE: Final = "pylon_interaction_"
_MOST: Final = 8
#: With the cookie of the one that the answer is about.
_MOST_DROPPED: Final = MOST_DROPPED - 1


def bind(req: falcon.Request, resp: falcon.Response, name: str, cookie: str, *, max_age_s: int) -> None:
    """Bind what waits under that name to this browser; the oldest beyond eight are dropped."""
    _drop_oldest(req, resp, name)
    set_cookie(req, resp, prefix(req) + name, cookie, max_age_s=max_age_s)


def is_bound(req: falcon.Request, resp: falcon.Response, name: str, is_its: Callable[[str], bool]) -> bool:
    """Whether this browser has a cookie of that name which is its; then the oldest beyond eight are dropped."""
    bound = any(map(is_its, shown(req, name)))
    if bound:
        _drop_oldest(req, resp, name)
    return bound


def shown(req: falcon.Request, name: str) -> list[str]:
    """The values by which the browser claims to have begun what has that name."""
    return list(cookie_values(req, prefix(req) + name))


def unbind(req: falcon.Request, resp: falcon.Response, name: str) -> None:
    """Drop the cookie of what is over."""
    set_cookie(req, resp, prefix(req) + name, "", max_age_s=0)


def keep_on(
    req: falcon.Request, resp: falcon.Response, name: str, is_its: Callable[[str], bool], *, max_age_s: int
) -> None:
    """Leave the cookie of what is over for a while longer: its form may be sent once more."""
    for value in filter(is_its, shown(req, name)):
        set_cookie(req, resp, prefix(req) + name, value, max_age_s=max_age_s)


def prefix(req: falcon.Request) -> str:
    """What the names of all these cookies begin with."""
    return protected_name(req, _COOKIE)


def _drop_oldest(req: falcon.Request, resp: falcon.Response, name: str) -> None:
    """Leave seven and this one: a POST from another site, which shows none, may have begun any number.

    What an answer cannot take away, the next one does.
    """
    own, begins = prefix(req) + name, prefix(req)
    others = [each for each in req.cookies if each.startswith(begins) and each != own]
    for each in others[: max(0, min(len(others) - _MOST + 1, _MOST_DROPPED))]:
        set_cookie(req, resp, each, "", max_age_s=0)
