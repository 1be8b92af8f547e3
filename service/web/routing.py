"""Paths to the letter: one spelling a route, and identifiers that may hold slashes."""

from __future__ import annotations

from typing import Any

import falcon
from falcon.routing import CompiledRouter


class ExactRouter(CompiledRouter):
    """Falcon's router, but for two things.

    It drops slashes doubled at the front; a proxy that guards a path by its name must be able to rely on there being
    no other spelling of it. And a parameter never holds a slash, which a WSGI server has decoded from `%2F`; a user
    id may, and whoever was signed in under it must be found under it.

    Args:
        identifier: the name of the parameter that may hold slashes.
        between: what its route has before and after it.
    """

    def __init__(self, *, identifier: str, between: tuple[str, str]) -> None:
        super().__init__()
        self._identifier = identifier
        self._before, self._after = between

    def find(
        self, uri: str, req: falcon.Request | None = None
    ) -> tuple[object, Any, dict[str, Any], str | None] | None:
        """See `CompiledRouter.find`."""
        if uri.startswith("//"):
            return None
        found = super().find(uri, req)
        if found is not None or not (uri.startswith(self._before) and uri.endswith(self._after)):
            return found
        identifier = uri[len(self._before) : -len(self._after)]
        found = super().find(f"{self._before}_{self._after}", req)
        if found is not None and identifier:
            found[2][self._identifier] = identifier
        return found
