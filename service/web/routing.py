"""Paths to the letter: one spelling a route, and identifiers that may hold slashes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import falcon
from falcon.routing import CompiledRouter


def raw_target(env: Mapping[str, Any]) -> str | None:
    """The request target as it was sent; None where the server does not hand it on, which PEP 3333 does not ask for.

    Args:
        env: the WSGI environment: gunicorn says `RAW_URI`; uWSGI, mod_wsgi and others `REQUEST_URI`.
    """
    return env.get("RAW_URI") or env.get("REQUEST_URI")


def target_lacks_host(env: Mapping[str, Any]) -> bool:
    """Whether the server has dropped the host of an absolute-form target, and a fragment, from what was sent."""
    return bool(env.get("pylon.target_without_host"))


def _raw_path(target: str) -> str:
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    # Absolute form. Only health comes so far with it: every other route refuses its authority (RFC 9112 §3.2.2).
    return "/" + path.partition("://")[2].partition("/")[2]


class ExactRouter(CompiledRouter):
    """Falcon's router, but for three things.

    A route has one spelling. A proxy guards a path by comparing what it was sent, so what it was sent must be what is
    routed on: where the server has decoded anything but an identifier, there is no such route.

    It drops slashes doubled at the front, which is another spelling too.

    And a parameter never holds a slash, which a WSGI server has decoded from `%2F`; a user id may, and whoever was
    signed in under it must be found under it. An id that goes on as another route does is that route's: `a/sessions`
    is the sessions of `a`. Sent as `a%2Fsessions` it is an id, where the server tells.

    Args:
        named_by_others: routes of one parameter that others choose: it may be sent encoded, and may hold slashes; of
            two that fit, the one that goes on after it counts.
    """

    def __init__(self, *, named_by_others: Iterable[str]) -> None:
        super().__init__()
        split = [re.split(r"{(\w+)}", template) for template in named_by_others]
        self._named_by_others = sorted(split, key=lambda parts: -len(parts[-1]))

    def find(
        self, uri: str, req: falcon.Request | None = None
    ) -> tuple[object, Any, dict[str, Any], str | None] | None:
        """See `CompiledRouter.find`.

        Spec: RFC 3986 §2.3, §6.2.2
        """
        if uri.startswith("//"):
            return None
        sent = uri
        if req is not None and (target := raw_target(req.env)) is not None:
            sent = _raw_path(target)
            if sent == req.env["PATH_INFO"]:
                sent = uri
        if sent == uri and (found := super().find(uri, req)) is not None:
            return found
        for before, name, after in self._named_by_others:
            identifier = sent.removeprefix(before).removesuffix(after)
            if identifier and sent == before + identifier + after:
                named = uri[len(before) : len(uri) - len(after)]
                if sent != uri and unquote(identifier) != named:  # a fragment, which the server has dropped
                    return None
                found = super().find(f"{before}_{after}", req)
                if found is not None:
                    found[2][name] = named
                return found
        return None
