"""Values that several rules read from an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from service.doctor.catalogue import Finding, kinds, shown
from service.doctor.evidence import Evidence
from service.doctor.reply import Reply
from service.doctor.sign_in import query_of, without_query

CLOCK_S: Final = 30
#: The longest time for which the service lets its public documents be kept.
MAX_AGE_S: Final = 300
LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
#: What the service answers if it cannot reach its database.
NO_STORE: Final = frozenset({"STORE_UNAVAILABLE", "temporarily_unavailable"})
#: What a proxy answers if it does not reach the service.
GATEWAY: Final = frozenset({500, 502, 503, 504})
__all__ = ["query_of", "without_query"]

Rule = Callable[[Evidence], Iterator[Finding]]


def found(e: Evidence, id_: str, seen: object, *, variant: str = "", **values: str) -> Finding:
    """A finding about this address.

    Args:
        e: the answers.
        id_: the id of its kind.
        seen: what doctor saw.
        variant: its case.
        values: more placeholders of its texts.
    """
    origin = e.options.origin
    usual = {
        "url": e.options.url,
        "origin": str(origin),
        "authority": origin.host,
        "path": e.options.path,
        "name": origin.name,
        "port": str(origin.port),
        "path_below": e.options.path.removeprefix("/") + ("/" if e.options.path else ""),
        **_upstream(e),
        "client": shown(e.options.client_id or ""),
    }
    return Finding(kinds()[id_], shown(seen, 240), usual | values, variant)


def _upstream(e: Evidence) -> dict[str, str]:
    """Where the application listens, in the notation of each proxy on the same machine; by default the usual place."""
    origin, place = e.options.inside or (None, None)
    if place is not None:
        path = place.address
        return {
            "inside_nginx": f"unix:{path}",
            "inside_apache": f"unix:{path}|http://localhost/",
            "inside_haproxy": f"unix@{path}",
            "inside_caddy": f"unix/{path}",
        }
    at = "127.0.0.1:4321" if origin is None else f"{origin.name}:{origin.port}"
    return {
        "inside_nginx": at,
        "inside_apache": f"http://{at}/",
        "inside_haproxy": at,
        "inside_caddy": at,
    }


def issuer_of(reply: Reply | None) -> str | None:
    """The issuer of a document; None for anything else."""
    issuer = None if reply is None else reply.json_object().get("issuer")
    return issuer if isinstance(issuer, str) else None


def is_oauth_error(reply: Reply | None) -> bool:
    """Whether it is an error in the shape of RFC 6749 §5.2."""
    return reply is not None and isinstance(reply.json_object().get("error"), str)


def is_own(reply: Reply) -> bool:
    """Whether the service itself refused, in one of its error shapes."""
    return is_oauth_error(reply) or reply.code not in {"", "PROXY_REFUSED"} or is_own_page(reply)


def is_own_page(reply: Reply) -> bool:
    """Whether it is a page of the service: nobody else's looks like it."""
    return reply.media_type == "text/html" and b"oidc/style.css" in reply.body


def cannot_reach_store(reply: Reply) -> bool:
    """Whether the service reports that its database is away."""
    error = reply.json_object().get("error")
    return reply.status == 503 and (reply.code in NO_STORE or error in NO_STORE)


def counts(part: int, of: int) -> str:
    """A number out of a total."""
    return f"all {of}" if part == of else f"{part} of {of}"


def date_of(reply: Reply) -> float | None:
    """Its `Date`, Unix s."""
    try:
        return parsedate_to_datetime(reply.header("date")).timestamp()
    except ValueError:
        return None


def max_age_of(reply: Reply) -> int | None:
    """How long it may be kept, in s; None if it does not say."""
    directives = [part.strip().lower() for part in reply.header("cache-control").split(",")]
    ages = [value for part in directives if (value := part.removeprefix("max-age=")) != part]
    return int(ages[0]) if len(ages) == 1 and ages[0].isdecimal() and len(ages[0]) < 12 else None


def cookie_is_lost(e: Evidence) -> bool:
    """Whether a sign-in fails for a browser that sends its cookie, and works on the inside."""
    within = e.reply("return-inside")
    return e.flow.get("return", "").startswith("400") and within is not None and within.status == 303


def age_of(e: Evidence, reply: Reply) -> int | None:
    """The age of an answer, in s, by its `Age` or its `Date` (RFC 9111 §4.2.3); None if it has neither."""
    shown_age, probe = reply.header("age"), e.reply("probe")
    told = [int(shown_age)] if shown_age.isdecimal() and len(shown_age) < 12 else []
    if probe is not None and (made := date_of(reply)) and (now := date_of(probe)):
        told.append(round(now - made))
    return max(told) if told else None


def keys_of(reply: Reply | None) -> list[Mapping[str, Any]]:
    """The keys of a JWK Set; empty for anything else."""
    keys = None if reply is None else reply.json_object().get("keys")
    return [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []


def kids_of(reply: Reply | None) -> set[str]:
    """The ids of its keys."""
    return {str(key.get("kid")) for key in keys_of(reply)}


def is_a_developers(e: Evidence) -> bool:
    """Whether the address is reachable only from its own machine, as with `make run`: there is no outside."""
    origin = e.options.origin
    return origin.scheme == "http" and origin.name in {"localhost", *LOOPBACK}
