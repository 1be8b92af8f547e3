"""Binds each unfinished sign-in to the browser that started it, with a cookie of which only a hash is stored.

Spec: RFC 9700 §4.7
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import falcon

from service.web.cookies import MOST_DROPPED, cookie_values, protected_name, set_cookie

_COOKIE: Final = "pylon_interaction_"
_MOST: Final = 8
#: Together with the cookie that the answer itself is about, this makes `MOST_DROPPED`.
_MOST_DROPPED: Final = MOST_DROPPED - 1


def bind(req: falcon.Request, resp: falcon.Response, name: str, cookie: str, *, max_age_s: int) -> None:
    """Bind the interaction of that name to this browser. If there are more than eight, the oldest are dropped."""
    _drop_oldest(req, resp, name)
    set_cookie(req, resp, prefix(req) + name, cookie, max_age_s=max_age_s)


def is_bound(req: falcon.Request, resp: falcon.Response, name: str, is_its: Callable[[str], bool]) -> bool:
    """Whether this browser has the cookie of that interaction. If so, all beyond the newest eight are dropped."""
    bound = any(map(is_its, shown(req, name)))
    if bound:
        _drop_oldest(req, resp, name)
    return bound


def shown(req: falcon.Request, name: str) -> list[str]:
    """The values of the cookies that the browser sends for that interaction."""
    return list(cookie_values(req, prefix(req) + name))


def unbind(req: falcon.Request, resp: falcon.Response, name: str) -> None:
    """Drop the cookie of a finished interaction."""
    set_cookie(req, resp, prefix(req) + name, "", max_age_s=0)


def keep_on(
    req: falcon.Request, resp: falcon.Response, name: str, is_its: Callable[[str], bool], *, max_age_s: int
) -> None:
    """Keep the cookie of a finished interaction for a while: its form may be sent once more."""
    for value in filter(is_its, shown(req, name)):
        set_cookie(req, resp, prefix(req) + name, value, max_age_s=max_age_s)


def prefix(req: falcon.Request) -> str:
    """The prefix of the names of all these cookies."""
    return protected_name(req, _COOKIE)


def _drop_oldest(req: falcon.Request, resp: falcon.Response, name: str) -> None:
    """Keep seven and this one. A POST from another site sends no cookies, so it can start any number of interactions.

    Cookies that do not fit into this answer are dropped by the next one.
    """
    own, begins = prefix(req) + name, prefix(req)
    others = [each for each in req.cookies if each.startswith(begins) and each != own]
    for each in others[: max(0, min(len(others) - _MOST + 1, _MOST_DROPPED))]:
        set_cookie(req, resp, each, "", max_age_s=0)
