"""Paths that must be closed to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from service.doctor.catalogue import Finding
from service.doctor.evidence import Evidence
from service.doctor.rules.reading import LOOPBACK, found, is_a_developers, issuer_of

_TREES: Final = {"closed-users": "/api/auth/users/", "closed-clients": "/api/oidc/"}
#: In spellings that a proxy compares as they were sent, if the server behind it decodes them.
_ENCODED: Final = {"encoded-clients": "/%61pi/oidc/", "encoded-session": "POST /api/auth/%73ession"}


def closed(e: Evidence) -> Iterator[Finding]:
    """Paths that only the app's backends and the operator need are closed to others, in any spelling."""
    trees = [what for name, what in _TREES.items() if _is_reached(e, name)]
    session = ["POST /api/auth/session"] if _is_reached(e, "closed-session") else []
    encoded = [what for name, what in _ENCODED.items() if _is_reached(e, name)]
    ready = e.reply("closed-readyz")
    ready_open = (
        ready is not None
        and ready.status in {200, 503}
        and not ready.code
        and "schema" in ready.json_object()
    )
    probe = e.reply("probe")
    if probe is not None and probe.asked_from in LOOPBACK:
        if trees or session or ready_open:
            yield found(e, "admin-reachable", "asked from this machine")
        elif encoded:  # this machine is allowed, but not with that spelling
            yield found(e, "admin-open", ", ".join(encoded), variant="encoded")
        return
    if trees or session or encoded:
        variant = "trees" if trees else "session" if session else "encoded"
        yield found(e, "admin-open", ", ".join([*trees, *session, *encoded]), variant=variant)
    if ready_open:
        yield found(e, "readyz-open", "the parts of the service are listed")


def _is_reached(e: Evidence, name: str) -> bool:
    """Whether the admin API itself refused, because the token is missing."""
    reply = e.reply(name)
    return reply is not None and reply.code == "FORBIDDEN"


def dev_mode(e: Evidence) -> Iterator[Finding]:
    """Nobody can sign in as any user. If every path has the same page, it is a single-page app."""
    reply, nowhere = e.reply("closed-dev"), e.reply("nowhere")
    if reply is None or reply.status != 200 or reply.media_type != "text/html" or is_a_developers(e):
        return
    is_everywhere = nowhere is not None and nowhere.status == 200 and nowhere.media_type == "text/html"
    if not is_everywhere:
        yield found(e, "dev-sign-in-open", "200 at /dev/sign-in")


def plain_http(e: Evidence) -> Iterator[Finding]:
    """Plain http redirects to https."""
    reply = e.reply("http")
    if reply is None:
        return
    # If the port is not 443, port 80 may belong to another site.
    if e.options.origin.port != 443 and issuer_of(reply) is None:
        return
    if reply.status < 300 or (reply.location and not reply.location.startswith("https://")):
        yield found(e, "http-without-redirect", f"{reply.status} {reply.location}".strip())
