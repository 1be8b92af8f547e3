"""Paths to the letter: one spelling a route, and identifiers that may hold slashes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import falcon
from falcon.routing import CompiledRouter


class ExactRouter(CompiledRouter):
    """Falcon's router, but for two things.

    It drops slashes doubled at the front; a proxy that guards a path by its name must be able to rely on there being
    no other spelling of it. And a parameter never holds a slash, which a WSGI server has decoded from `%2F`; a user
    id may, and whoever was signed in under it must be found under it.

    An id that goes on as another route does is that route's: `a/sessions` is the sessions of `a`.

    Args:
        with_slashes: routes of one parameter that may hold slashes; of two that fit, the first counts.
    """

    def __init__(self, *, with_slashes: Iterable[str]) -> None:
        super().__init__()
        self._with_slashes = [re.split(r"{(\w+)}", template) for template in with_slashes]

    def find(
        self, uri: str, req: falcon.Request | None = None
    ) -> tuple[object, Any, dict[str, Any], str | None] | None:
        """See `CompiledRouter.find`."""
        if uri.startswith("//"):
            return None
        found = super().find(uri, req)
        if found is not None:
            return found
        for before, name, after in self._with_slashes:
            identifier = uri.removeprefix(before).removesuffix(after)
            if identifier and uri == before + identifier + after:
                found = super().find(f"{before}_{after}", req)
                if found is not None:
                    found[2][name] = identifier
                return found
        return None
