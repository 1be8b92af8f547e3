"""Where resources stand: each module of `resources/` says it of its own, and `app.py` joins what they say.

What a resource is, it says itself, by attributes that one place each reads:

    admin_only    only the admin token opens it: True, or some of its methods (`AsTheResourceSays`)
    any_origin    scripts of any origin may read its answers (`OpenCors`)
    any_host      it answers whatever `Host` says (`IssuerOfRequest`)
    send_error    how it answers an error of OAuth (`ErrorsOfEndpoints`)
    show_failure  how it shows a browser what went wrong (`AsTheResourceSays`)
    head_is_get   False: nobody looks at it without doing it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mount:
    """A resource at a path.

    Attributes:
        path: its template, below the issuer's path.
        resource: what answers there.
        named_by_others: whether others choose its one parameter: it may be sent encoded, and may hold slashes.
        at_root: whether the path is the whole one, wherever the issuer's path is.
    """

    path: str
    resource: Any
    named_by_others: bool = False
    at_root: bool = False


def joined(mounts: Iterable[Mount], *, prefix: str) -> Mapping[str, Mount]:
    """All of them by their whole path.

    Args:
        mounts: of every module.
        prefix: the issuer's path; empty where it has none.

    Raises:
        ValueError: when two stand at one path.
    """
    table: dict[str, Mount] = {}
    for mount in mounts:
        path = mount.path if mount.at_root else prefix + mount.path
        if path in table:
            raise ValueError(f"two resources stand at {path}")
        table[path] = mount
        _derive_head(mount.resource)
    return table


def paths_with(attribute: str, table: Mapping[str, Mount]) -> Mapping[str, Any]:
    """The paths whose resource has an attribute, with its value."""
    return {
        path: getattr(mount.resource, attribute)
        for path, mount in table.items()
        if hasattr(mount.resource, attribute)
    }


def _derive_head(resource: Any) -> None:
    if hasattr(resource, "on_get") and getattr(resource, "head_is_get", True):
        resource.on_head = resource.on_get
