"""The paths of resources: each module of `resources/` declares its own, and `app.py` joins them.

A resource declares what it is with attributes. One place reads each of them:

    admin_only    needs the admin token: True, or the names of the methods that do (`AsTheResourceSays`)
    any_origin    scripts of any origin may read the answers (`OpenCors`)
    any_host      answers for any `Host` (`IssuerOfRequest`)
    send_error    sends an OAuth error (`ErrorsOfEndpoints`)
    show_failure  shows a failure in a browser (`AsTheResourceSays`)
    head_is_get   False: a GET changes something, so HEAD is not answered
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.web.routing import ANY_LAST

_TRAILING: Final = re.compile(r"/\{\w+\}\Z")


@dataclass(frozen=True, slots=True)
class Mount:
    """A resource at a path.

    Attributes:
        path: its route template, below the issuer's path.
        resource: the resource that answers.
        named_by_others: whether its one parameter is chosen outside this service, which may be sent encoded and may contain slashes.
        at_root: whether the path is absolute, whatever the issuer's path is.
    """

    path: str
    resource: Any
    named_by_others: bool = False
    at_root: bool = False


def joined(mounts: Iterable[Mount], *, prefix: str) -> Mapping[str, Mount]:
    """Join all mounts, by their whole path.

    Args:
        mounts: the mounts of every module.
        prefix: the issuer's path; empty if it has none.

    Raises:
        ValueError: if two have the same path.
    """
    table: dict[str, Mount] = {}
    for mount in mounts:
        path = mount.path if mount.at_root else prefix + mount.path
        if path in table:
            raise ValueError(f"two resources have the path {path}")
        table[path] = mount
        _derive_head(mount.resource)
    return table


def paths_with(attribute: str, table: Mapping[str, Mount]) -> Mapping[str, Any]:
    """The paths whose resource has the attribute, with its value. See `declared_at`."""
    return {
        _TRAILING.sub(ANY_LAST, path): getattr(mount.resource, attribute)
        for path, mount in table.items()
        if hasattr(mount.resource, attribute)
    }


def _derive_head(resource: Any) -> None:
    if hasattr(resource, "on_get") and getattr(resource, "head_is_get", True):
        resource.on_head = resource.on_get
