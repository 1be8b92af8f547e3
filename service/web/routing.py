"""Routes paths exactly: each route has one spelling, and identifiers may contain slashes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import falcon
from falcon.routing import CompiledRouter

T = TypeVar("T")
#: A parameter at the end of a path, whatever its value is.
ANY_LAST: Final = "/{}"


def declared_at(path: str, declared: Mapping[str, T]) -> T | None:
    """What is declared for a path of a request, which may end with any parameter; before it is routed."""
    found = declared.get(path)
    return declared.get(path.rpartition("/")[0] + ANY_LAST) if found is None else found


def raw_target(env: Mapping[str, Any]) -> str | None:
    """The request target as it was sent; None if the server does not pass it, which PEP 3333 does not require.

    Args:
        env: the WSGI environment. gunicorn sets `RAW_URI`; uWSGI, mod_wsgi and others set `REQUEST_URI`.
    """
    return env.get("RAW_URI") or env.get("REQUEST_URI")


def target_lacks_host(env: Mapping[str, Any]) -> bool:
    """Whether the server drops the host of an absolute-form target, and a fragment."""
    return bool(env.get("pylon.target_without_host"))


def _raw_path(target: str) -> str:
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    # Absolute form. Only the health routes get here with it: all others refuse its host (RFC 9112 §3.2.2).
    return "/" + path.partition("://")[2].partition("/")[2]


class ExactRouter(CompiledRouter):
    """Falcon's router with two changes.

    Each route has exactly one spelling. A proxy protects a path by comparing what was sent, so routing uses what was
    sent too: a path with percent-encoded characters outside an identifier, or with doubled slashes at the front, is
    not found.

    Identifiers may contain slashes. A WSGI server decodes `%2F`, and Falcon's parameters never contain a slash; but a
    user id may, and its user must be found. An id that ends like another route belongs to that route: `a/sessions` is
    the sessions of `a`. Sent as `a%2Fsessions`, it is an id, if the server passes the target as it was sent.

    Args:
        named_by_others: routes with one parameter that the app chooses. It may be sent encoded and may contain
            slashes. If two routes match, the one with more text after the parameter wins.
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
                if sent != uri and unquote(identifier) != named:  # the server has dropped a fragment
                    return None
                found = super().find(f"{before}_{after}", req)
                if found is not None:
                    found[2][name] = named
                return found
        return None
