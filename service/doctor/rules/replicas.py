"""Whether every answer comes from the same service: repeated requests get the same answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.doctor.catalogue import Finding, shown
from service.doctor.evidence import NOBODY, Evidence, UnverifiedToken
from service.doctor.reply import Reply
from service.doctor.rules.reading import (
    CLOCK_S,
    MAX_AGE_S,
    age_of,
    cannot_reach_store,
    counts,
    date_of,
    found,
    issuer_of,
    keys_of,
    kids_of,
    max_age_of,
    query_of,
    without_query,
)

_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
#: An answer that is not older may come from the service itself.
_JUST_MADE_S: Final = 2
_DOCUMENTS: Final = ("discovery", "discovery-2", "discovery-3")


def replicas_issuer(e: Evidence) -> Iterator[Finding]:
    """Every answer has the same issuer."""
    documents = [issuer_of(e.reply(name)) for name in _DOCUMENTS]
    redirects = [query_of(reply.location, "iss") for reply in e.replies("silent")]
    minted = [token.claims.get("iss") for token in e.minted]
    for source in (documents, redirects, minted):
        seen = sorted({str(issuer) for issuer in source if issuer is not None})
        if len(seen) > 1 and not any(NOBODY in issuer or "doctor-probe" in issuer for issuer in seen):
            yield found(e, "replicas-differ-issuer", " and ".join(map(shown, seen[:3])))
            return


def stores(e: Evidence) -> Iterator[Finding]:
    """Every replica reaches the database, and it is the same one."""
    asked = [reply for group in ("userinfo", "silent", "mint") for reply in e.replies(group)]
    away = [reply for reply in asked if cannot_reach_store(reply)]
    if away and len(away) < len(asked):
        seen = f"503 {_error(away[0])} to {counts(len(away), len(asked))} questions: one replica cannot reach its database"
        yield found(e, "replica-without-database", seen)
        return
    minted = e.replies("mint")
    unknown = [reply for reply in minted if reply.code == "AUTH_REQUIRED"]
    if unknown and any(reply.status == 200 for reply in minted):
        seen = (
            f"a session that was just made is unknown (401) to {counts(len(unknown), len(minted))} requests"
        )
        yield found(e, "replicas-differ-database", seen)


def secrets(e: Evidence) -> Iterator[Finding]:
    """Every replica has the same secrets."""
    accepted = [reply for reply in e.replies("accepted") if reply.status == 200]
    dead = [reply for reply in accepted if reply.json_object().get("active") is False]
    if dead and len(dead) < len(accepted):
        seen = f"{counts(len(dead), len(accepted))} fresh HS256 tokens are not known inside: they are signed with another secret"
        yield found(e, "replicas-differ-secret", seen, variant="token")
    told = [str(reply.json_object().get("error")) for reply in e.replies("client")]
    refused = told.count("invalid_client")
    if refused and "invalid_grant" in told:
        seen = f"invalid_client to {counts(refused, len(told))} requests with the same client and secret"
        yield found(e, "replicas-differ-secret", seen, variant="client")


def clocks(e: Evidence) -> Iterator[Finding]:
    """Every replica has the same time."""
    off = [round(token.claims["iat"] - token.received_at) for token in e.minted if _is_dated(token)]
    if not off:
        asked = [*e.replies("silent"), *e.replies("userinfo")]
        off = [round(at - reply.received_at) for reply in asked if (at := date_of(reply)) is not None]
    if off and max(off) - min(off) > CLOCK_S:
        usual = min(off, key=abs)  # as here, or nearly
        odd = max(off, key=lambda each: abs(each - usual))
        direction = "ahead of" if odd > usual else "behind"
        share = sum(abs(each - odd) <= CLOCK_S for each in off)
        seen = f"{counts(share, len(off))} answers are {abs(odd - usual)} s {direction} the others"
        yield found(e, "replicas-differ-clock", seen)


def _is_dated(token: UnverifiedToken) -> bool:
    iat = token.claims.get("iat")
    return token.received_at > 0 and isinstance(iat, int) and abs(iat) < 10**12


def clients(e: Evidence) -> Iterator[Finding]:
    """Every replica knows the client, so a sign-in can begin."""
    asked = [*e.replies("authorize"), *e.replies("silent")]
    refused = [reply for reply in asked if reply.status in {400, 501}]
    if not refused:
        return
    seen = f"{refused[0].status} to {counts(len(refused), len(asked))} requests that begin a sign-in"
    if len(refused) < len(asked):
        yield found(e, "client-refused", f"{seen}: one replica does not know the client", variant="replica")
        return
    within, known = e.reply("authorize-inside"), e.reply("client-inside")
    if within is not None and within.status == 303:
        lost = _is_same_page(refused[0], e.reply("authorization"))
        more = "as for a request without a query" if lost else "the inside takes the same request"
        yield found(
            e,
            "client-refused",
            f"outside {seen}, {more}; inside {within.status}",
            variant="query" if lost else "",
        )
        return
    metadata = {} if known is None or known.status != 200 else known.json_object()
    uris = metadata.get("redirect_uris")
    if known is not None and known.status == 404:
        seen = f"{seen}; inside no client {shown(e.options.client_id or '', 60)} is registered"
        yield found(e, "client-refused", seen, variant="unknown")
    elif isinstance(uris, list) and e.options.redirect_uri not in uris:
        first = shown(uris[0], 80) if uris else "none"
        seen = f"{seen}: the redirect_uri is not registered for this client; registered: {first}"
        yield found(e, "client-refused", seen, variant="redirect")
    else:
        yield found(e, "client-refused", seen, variant="unknown" if within is None else "")


def _is_same_page(one: Reply, other: Reply | None) -> bool:
    """Whether two pages are the same, except for their request ids."""
    if other is None or one.status != other.status:
        return False
    pages = [_without_id(reply) for reply in (one, other)]
    return pages[0] == pages[1]


def _without_id(reply: Reply) -> bytes:
    return reply.body.replace(reply.header("x-request-id").encode("latin-1") or b"\0", b"")


def client_secret(e: Evidence) -> Iterator[Finding]:
    """The given secret is the client's."""
    told = [str(reply.json_object().get("error")) for reply in e.replies("client")]
    is_known = any(reply.status == 303 for reply in e.replies("authorize"))
    if is_known and e.options.client_secret is not None and set(told) == {"invalid_client"}:
        seen = "invalid_client at the token endpoint: the secret that was given is not this client's"
        yield found(e, "client-refused", seen, variant="secret")


def keys(e: Evidence) -> Iterator[Finding]:
    """The published keys are a JWK Set of public keys, the same in every answer, and include the ones that sign."""
    reply = e.reply("jwks")
    if reply is None:
        return
    if reply.status != 200 or not isinstance(reply.json_object().get("keys"), list):
        yield found(e, "jwks-invalid", f"{reply.status} {reply.media_type}: no JWK Set")
        return
    kids = [str(key.get("kid")) for key in e.keys]
    if any(_PRIVATE_MEMBERS & key.keys() for key in e.keys):
        yield found(e, "jwks-invalid", "a key with private members")
    if len(set(kids)) < len(kids) or (len(kids) > 1 and not all("kid" in key for key in e.keys)):
        yield found(e, "jwks-invalid", "keys without a kid of their own")
    sets = [kids_of(other) for other in e.replies("jwks") if other.status == 200]
    used = sorted({str(token.header["kid"]) for token in e.minted if "kid" in token.header})
    if any(other != sets[0] for other in sets):
        yield found(e, "replicas-differ-keys", "requests for the keys get different ones")
    elif set(used) <= set(kids):
        return  # two of them: a rotation, just now
    elif len(used) > 1:
        yield found(e, "replicas-differ-keys", f"tokens of one minute have the kids {', '.join(used)}")
    else:
        yield _old_keys(e, reply, f"a fresh token has the kid {used[0]}, published: {kids}")


def _old_keys(e: Evidence, reply: Reply, seen: str) -> Finding:
    """Keys that a cache has kept too long, or that are not the service's: it sends its own with an ETag and a max-age."""
    within = e.reply("jwks-inside")
    is_a_file = not reply.header("etag") and not reply.header("cache-control")
    if within is not None and keys_of(within) and is_a_file:
        return found(e, "jwks-not-ours", f"{seen}; inside {sorted(kids_of(within))}")
    lasts, age = max_age_of(reply), age_of(e, reply)
    if lasts is not None and age is not None and _JUST_MADE_S < age <= lasts <= MAX_AGE_S:
        kept = f"{seen}; the set is {age} s old, and may be kept for {lasts} s"
        return found(e, "jwks-cached-too-long", kept, variant="within")
    return found(e, "jwks-cached-too-long", seen)


def replicas(e: Evidence) -> Iterator[Finding]:
    """Every replica has the same version and the same settings."""
    replies = [e.reply(name) for name in _DOCUMENTS]
    documents = [
        reply.json_object() for reply in replies if reply is not None and issuer_of(reply) == e.issuer
    ]
    differing = sorted({key for d in documents for key, value in d.items() if value != e.document.get(key)})
    differing += sorted({key for d in documents for key in e.document if key not in d})
    if e.issuer is not None and differing:
        yield found(e, "replicas-differ", f"documents differ in {', '.join(differing)}")
        return
    pages = sorted({without_query(r.location) for r in e.replies("authorize") if r.status == 303})
    if len(pages) > 1:
        yield found(e, "replicas-differ", f"users are sent to {' and to '.join(map(shown, pages[:3]))}")
        return
    for name, values in _of_tokens(e.minted).items():
        if len(values) > 1:
            yield found(
                e, "replicas-differ", f"tokens of one minute differ in {name}: {', '.join(sorted(values))}"
            )
            return


def _of_tokens(minted: Any) -> dict[str, set[str]]:
    """The parts of a token that depend on a replica's settings: name -> the values that were seen."""
    told: dict[str, set[str]] = {"alg": set(), "aud": set()}
    for token in minted:
        told["alg"].add(str(token.header.get("alg")))
        told["aud"].add(str(token.claims.get("aud")))
    return told


def _error(reply: Reply) -> str:
    return reply.code or str(reply.json_object().get("error"))
