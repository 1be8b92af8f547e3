"""The age of answers, how long they may be kept, whether one client gets another's, and the clocks."""

from __future__ import annotations

from collections.abc import Iterator

from service.doctor.catalogue import Finding
from service.doctor.evidence import Evidence
from service.doctor.rules.reading import (
    CLOCK_S,
    MAX_AGE_S,
    age_of,
    date_of,
    found,
    is_oauth_error,
    max_age_of,
    query_of,
)


def clock(e: Evidence) -> Iterator[Finding]:
    """The clocks agree."""
    reply = e.reply("probe") or e.reply("discovery")
    there = None if reply is None else date_of(reply)
    if reply is not None and there is not None and abs(there - reply.received_at) > CLOCK_S:
        off = round(there - reply.received_at)
        yield found(e, "clock-off", f"{abs(off)} s {'ahead' if off > 0 else 'behind'}")


def ages(e: Evidence) -> Iterator[Finding]:
    """No cache keeps a document longer than it may (RFC 9111 §4.2)."""
    for name in ("discovery", "jwks"):
        reply = e.reply(name)
        if reply is None or reply.status != 200:
            continue
        lasts, age = max_age_of(reply), age_of(e, reply)
        if lasts is not None and age is not None and age > lasts + CLOCK_S:
            yield found(e, "cache-too-old", f"{name}: {age} s old, max-age={lasts}")
            return


def cache_control(e: Evidence) -> Iterator[Finding]:
    """Cache-Control arrives as the service sent it."""
    if not e.is_ours or e.issuer is None:
        return
    wrong = []
    for name in ("discovery", "jwks"):
        reply = e.reply(name)
        if reply is None or reply.status != 200 or "no-store" in reply.header("cache-control"):
            continue
        lasts = max_age_of(reply)
        if lasts is None or lasts > MAX_AGE_S:
            wrong.append(f"{name}: {reply.header('cache-control') or 'none'}")
    token = e.reply("token")
    if token is not None and is_oauth_error(token) and "no-store" not in token.header("cache-control"):
        wrong.append(f"token: {token.header('cache-control') or 'none'}")
    if wrong:
        # The service sends it once; a second one was added.
        case = (
            "added"
            if any(each.count("max-age") + each.count("no-store") > 1 for each in wrong)
            else "changed"
        )
        yield found(e, "cache-control-changed", "; ".join(wrong), variant=case)


def private_answers(e: Evidence) -> Iterator[Finding]:
    """An answer for one client goes to no other: each sign-in is new, and a request without a token gets its own answer."""
    begun = [
        query_of(reply.location, "interaction") for reply in e.replies("authorize") if reply.status == 303
    ]
    known = [each for each in begun if each is not None]
    if len(set(known)) < len(known):
        seen = "two sign-ins that began have the same interaction, and the same cookie, at the authorization endpoint"
        yield found(e, "private-answers-cached", seen, endpoint=_path(e, "authorization_endpoint"))
        return
    shown_, bare = e.reply("userinfo"), e.reply("userinfo-bare")
    if shown_ is None or bare is None or not (shown_.status == bare.status == 401):
        return
    told = bare.header("www-authenticate")
    if "invalid_token" in told and told == shown_.header("www-authenticate"):
        seen = "a request without a token gets the answer to the one before, which had one, at the userinfo endpoint"
        yield found(e, "private-answers-cached", seen, endpoint=_path(e, "userinfo_endpoint"))


def _path(e: Evidence, member: str) -> str:
    return e.endpoint(member) or ""


def etag(e: Evidence) -> Iterator[Finding]:
    """A strong entity tag arrives with every Accept-Encoding."""
    plain, zipped = e.reply("discovery"), e.reply("discovery-gzip")
    if plain is None or zipped is None or not plain.header("etag").startswith('"'):
        return
    if not zipped.header("etag").startswith('"'):
        yield found(
            e, "etag-broken-by-gzip", f"{plain.header('etag')} became {zipped.header('etag') or 'none'}"
        )
