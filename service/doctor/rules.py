"""From what came back to what is wrong: one small function a question, in one ordered table, the causes first.

Each rule reads the evidence and yields what it finds; none asks anything, or knows of another. What follows from what
stands in `FOLLOWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from service.doctor.catalogue import Finding, counted, kinds, shown
from service.doctor.evidence import NOBODY, Evidence, UnverifiedToken
from service.doctor.wire import Origin, Reply, WireError
from service.keyring import verifies_by_jwk

_CLOCK_S: Final = 30
#: What the service says of its public documents, at most.
_MAX_AGE_S: Final = 300
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_URLS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_MORE_URLS: Final = (
    "userinfo_endpoint",
    "introspection_endpoint",
    "revocation_endpoint",
    "end_session_endpoint",
)
_LISTS: Final = (
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
)

Rule = Callable[[Evidence], Iterator[Finding]]


def _found(e: Evidence, id_: str, seen: object, *, variant: str = "", **values: str) -> Finding:
    origin = e.options.origin
    usual = {
        "url": e.options.url,
        "origin": str(origin),
        "path": e.options.path,
        "name": origin.name,
        "port": str(origin.port),
    }
    return Finding(kinds()[id_], shown(seen), usual | values, variant)


# --- the connection ---

#: By OpenSSL's X509_V_ERR_… of the chain.
_CERTIFICATES: Final = {
    9: "certificate-expired",
    10: "certificate-expired",
    18: "certificate-self-signed",
    62: "certificate-wrong-name",
    64: "certificate-wrong-name",
}
_BROKEN: Final = {
    "dns": "dns-fails",
    "refused": "connection-refused",
    "unroutable": "connection-refused",
    "timeout": "too-slow",
    "old-tls": "tls-too-old",
}


def connection(e: Evidence) -> Iterator[Finding]:
    """The name, the port, the certificate and TLS are what a relying party needs."""
    error = e.error("discovery")
    if error is None:
        return
    if error.kind == "certificate":
        id_ = _CERTIFICATES.get(error.code, "certificate-incomplete-chain")
    elif error.kind == "tls" and e.reply("old-tls") is not None:
        id_ = "tls-too-old"
    else:
        id_ = _BROKEN.get(error.kind, "not-http")
    yield _found(e, id_, error.detail)


def old_tls(e: Evidence) -> Iterator[Finding]:
    """TLS 1.0 and 1.1 are spoken by nobody (RFC 8996)."""
    reply = e.reply("old-tls")
    if reply is not None and e.error("discovery") is None:
        yield _found(e, "tls-too-old", f"{reply.tls} is spoken too")


def addresses(e: Evidence) -> Iterator[Finding]:
    """All addresses of the name lead to the same service."""
    told: dict[str, str] = {}
    for name, answer in e.answers.items():
        if not name.startswith("address ") or (isinstance(answer, WireError) and answer.kind == "unroutable"):
            continue
        if isinstance(answer, WireError):
            told[name] = answer.detail
        else:
            told[name] = _issuer(answer) or f"{answer.status} {answer.media_type}"
    usual = e.issuer or next(iter(told.values()), "")
    for name, seen in told.items():
        if seen != usual:
            address = name.partition(" ")[2]
            yield _found(e, "addresses-differ", f"{address}: {seen}; elsewhere: {usual}", address=address)
            return


def gateway(e: Evidence) -> Iterator[Finding]:
    """The proxy reaches the service."""
    reply = e.reply("discovery")
    if reply is not None and reply.status in {502, 503, 504}:
        yield _found(e, "bad-gateway", f"{reply.status} at the discovery address")


# --- the discovery document ---


def redirect(e: Evidence) -> Iterator[Finding]:
    """Discovery is answered without a redirect (Discovery §4.2)."""
    reply = e.reply("discovery")
    if reply is None or not reply.location:
        return
    seen = f"{reply.status} to {reply.location}"
    told = e.reply("discovery-proto")
    if told is not None and told.status == 200:
        yield _found(e, "forwarded-proto-believed", f"{seen}; none with X-Forwarded-Proto: https")
        return
    probe = e.reply("probe")
    everything = probe is not None and bool(probe.location)
    yield _found(e, "well-known-redirected", seen, variant="everything" if everything else "this")


def no_document(e: Evidence) -> Iterator[Finding]:
    """There is a document, and it is the service's."""
    reply = e.reply("discovery")
    if reply is None or e.issuer is not None or reply.location or reply.status in {502, 503, 504}:
        return
    seen = f"{reply.status} {reply.media_type}"
    if reply.code == "INVALID_HOST":
        yield _found(e, "host-not-forwarded", f"{seen}: the service refused the Host that the proxy sent")
    elif reply.code == "NOT_FOUND":
        yield from _elsewhere(e, seen)
    elif reply.status == 200 and reply.json_object():
        yield _found(e, "metadata-invalid", "issuer is missing, or no text")
    elif reply.status == 200 and reply.media_type != "text/html":
        size = "more than 256 KiB" if reply.truncated else f"{len(reply.body)} bytes"
        yield _found(e, "malformed-document", f"{seen}, {size} that are no JSON object")
    elif e.is_reached or _oauth_error(e.reply("token-probe")):
        yield _found(e, "well-known-is-html" if reply.status == 200 else "well-known-not-found", seen)
    else:
        yield _found(e, "stale-upstream", f"{seen}; nothing here answers as an OpenID provider does")


def _elsewhere(e: Evidence, seen: str) -> Iterator[Finding]:
    """The service answers, but its issuer is not this address: tell where it is then."""
    found = {name: _issuer(e.reply(f"discovery-{name}")) for name in ("folded", "twice", "root")}
    if found["folded"] is not None:
        yield _found(e, "issuer-case", f"{seen}; at {found['folded']} it is there")
    elif found["twice"] is not None:
        yield _found(e, "path-eaten", f"{seen}; with the path twice it is there")
    elif found["root"] == e.options.url:
        yield _found(e, "path-doubled", f"{seen}; without the path it is there")
    else:
        at = f"; at {found['root']} it is there" if found["root"] is not None else ""
        yield _found(e, "issuer-path", f"{seen}: the service is here, and its issuer is another address{at}")


def _issuer(reply: Reply | None) -> str | None:
    issuer = None if reply is None else reply.json_object().get("issuer")
    return issuer if isinstance(issuer, str) else None


def _oauth_error(reply: Reply | None) -> bool:
    return reply is not None and isinstance(reply.json_object().get("error"), str)


def replicas_issuer(e: Evidence) -> Iterator[Finding]:
    """Everybody who answers has the same issuer."""
    documents = [_issuer(e.reply(name)) for name in ("discovery", "discovery-2", "discovery-3")]
    redirects = [_query(reply.location, "iss") for reply in e.replies("authorize-")]
    minted = [token.claims.get("iss") for token in e.minted]
    for source in (documents, redirects, minted):
        seen = sorted({str(issuer) for issuer in source if issuer is not None})
        if len(seen) > 1 and not any(NOBODY in issuer or "doctor-probe" in issuer for issuer in seen):
            yield _found(e, "replicas-differ-issuer", " and ".join(map(shown, seen[:3])))
            return


def _query(url: str, name: str) -> str | None:
    try:
        return parse_qs(urlsplit(url).query).get(name, [None])[0]
    except ValueError:
        return None


def issuer(e: Evidence) -> Iterator[Finding]:
    """The issuer is the address, byte for byte (Discovery §4.3)."""
    given, url = e.issuer, e.options.url
    if given is None or given == url:
        return
    place = next((n for n, pair in enumerate(zip(given, url, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(given), len(url)) if place is None else place
    yield _found(e, _difference(e, given), f"{shown(given, 100)} (other than asked from character {at + 1})",
                 variant="document")  # fmt: skip


def _difference(e: Evidence, given: str) -> str:
    """The first of the ways to differ that holds."""
    url, asked, told = e.options.url, e.options.origin, Origin.of(given)
    derived = e.is_derived and e.is_ours
    ways = {
        "port-dropped": derived and told is not None and told.name == asked.name,
        "host-not-forwarded": derived,
        "issuer-trailing-slash": given.rstrip("/") == url,
        "issuer-case": given.lower() == url.lower(),
        "issuer-scheme-http": told is not None and told.scheme == "http" and asked.scheme == "https",
        "issuer-name": told is None or told.name != asked.name,
        "issuer-port": told is not None and told.port != asked.port,
    }
    return next((way for way, holds in ways.items() if holds), "issuer-path")


def metadata(e: Evidence) -> Iterator[Finding]:
    """The document's members are there, each of its type (Discovery §3)."""
    if e.issuer is None:
        return
    wrong = [name for name in _URLS if Origin.of(str(e.document.get(name))) is None]
    wrong += [name for name in _MORE_URLS if name in e.document and Origin.of(str(e.document[name])) is None]
    wrong += [name for name in _LISTS if not _is_list_of_text(e.document.get(name))]
    if wrong:
        yield _found(e, "metadata-invalid", f"missing or of another type: {', '.join(wrong)}")
        return
    elsewhere = [name for name in (*_URLS, *_MORE_URLS) if name in e.document and e.endpoint(name) is None]
    same = e.issuer == e.options.url
    if elsewhere and same:
        yield _found(e, "endpoint-elsewhere", f"not at {e.options.origin}: {', '.join(elsewhere)}")


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


# --- what others send ---


def forwarded(e: Evidence) -> Iterator[Finding]:
    """Headers that anybody may send change nothing."""
    reply = e.reply("forged-forwarded")
    told = _issuer(reply)
    if reply is not None and (
        reply.code == "INVALID_HOST"
        or NOBODY in reply.location
        or (reply.status == 200 and told is not None and told not in _without_forging(e))
    ):
        yield _found(e, "forwarded-host-believed", told or f"{reply.status} {reply.code or reply.location}")
    reply = e.reply("forged-proto")
    if reply is None or (e.issuer or "").startswith("http://"):
        return
    if reply.location or (_issuer(reply) or "").startswith("http://"):
        seen = f"{reply.status} to {reply.location}" if reply.location else str(_issuer(reply))
        yield _found(e, "forwarded-proto-believed", seen)


def _without_forging(e: Evidence) -> set[str | None]:
    """The issuers that are told to who sends nothing odd: more than one where replicas differ."""
    return {e.issuer, *(_issuer(e.reply(name)) for name in ("discovery-2", "discovery-3"))}


def hosts(e: Evidence) -> Iterator[Finding]:
    """Names that are not ours are refused, and no cache mixes names up."""
    told = _issuer(e.reply("forged-host"))
    after = [_issuer(e.reply(name)) for name in ("discovery-2", "discovery-3")]
    if told is not None and told == e.issuer and e.is_derived and e.issuer == e.options.url:
        yield _found(e, "cache-ignores-host", f"another name was told {told}")
    elif any(found is not None and "doctor-probe" in found for found in after):
        yield _found(e, "cache-ignores-host", f"after another name had asked: {after}")
    elif any(found is not None and NOBODY in found for found in after):
        yield _found(e, "cache-poisoned", f"after a forged request: {after}")
    told = _issuer(e.reply("forged-nobody"))
    if told is not None and NOBODY in told and not _is_a_developers(e):
        yield _found(e, "any-host-answered", f"Host: {NOBODY} was told {told}")


# --- replicas, caches, clocks ---


def clock(e: Evidence) -> Iterator[Finding]:
    """The clocks agree."""
    reply = e.reply("probe") or e.reply("discovery")
    there = None if reply is None else _date(reply)
    if reply is not None and there is not None and abs(there - reply.received_at) > _CLOCK_S:
        off = round(there - reply.received_at)
        yield _found(e, "clock-off", f"{abs(off)} s {'ahead' if off > 0 else 'behind'}")


def keys(e: Evidence) -> Iterator[Finding]:
    """The published keys are a JWK Set of public keys, the same in every answer, and the ones that sign."""
    reply = e.reply("jwks")
    if reply is None:
        return
    if reply.status != 200 or not isinstance(reply.json_object().get("keys"), list):
        yield _found(e, "jwks-invalid", f"{reply.status} {reply.media_type}: no JWK Set")
        return
    kids = [str(key.get("kid")) for key in e.keys]
    if any(_PRIVATE_MEMBERS & key.keys() for key in e.keys):
        yield _found(e, "jwks-invalid", "a key with private members")
    if len(set(kids)) < len(kids) or (len(kids) > 1 and not all("kid" in key for key in e.keys)):
        yield _found(e, "jwks-invalid", "keys without a kid of their own")
    sets = [{str(key.get("kid")) for key in _keys(other)} for other in e.replies("jwks")]
    used = sorted({str(token.header["kid"]) for token in e.minted if "kid" in token.header})
    if any(other != sets[0] for other in sets):
        yield _found(e, "replicas-differ-keys", "requests for the keys get different ones")
    elif set(used) <= set(kids):
        return  # two of them: a rotation, just now
    elif len(used) > 1:
        yield _found(e, "replicas-differ-keys", f"tokens of one minute have the kids {', '.join(used)}")
    else:
        yield _found(e, "jwks-cached-too-long", f"a fresh token has the kid {used[0]}, published: {kids}")


def _keys(reply: Reply) -> list[Mapping[str, Any]]:
    keys_ = reply.json_object().get("keys")
    return [key for key in keys_ if isinstance(key, dict)] if isinstance(keys_, list) else []


def replicas(e: Evidence) -> Iterator[Finding]:
    """Everybody who answers is of the same version, with the same settings."""
    replies = [e.reply(name) for name in ("discovery", "discovery-2", "discovery-3")]
    documents = [reply.json_object() for reply in replies if reply is not None and _issuer(reply) == e.issuer]
    differing = sorted({key for d in documents for key, value in d.items() if value != e.document.get(key)})
    differing += sorted({key for d in documents for key in e.document if key not in d})
    if e.issuer is not None and differing:
        yield _found(e, "replicas-differ", f"documents differ in {', '.join(differing)}")


def ages(e: Evidence) -> Iterator[Finding]:
    """No cache keeps a document longer than it may (RFC 9111 §4.2)."""
    probe = e.reply("probe")
    for name in ("discovery", "jwks"):
        reply = e.reply(name)
        if reply is None or reply.status != 200:
            continue
        lasts = _max_age(reply)
        shown_age = reply.header("age")
        ages_ = [int(shown_age)] if shown_age.isdecimal() and len(shown_age) < 12 else []
        if probe is not None and (made := _date(reply)) and (now := _date(probe)):
            ages_.append(round(now - made))
        if lasts is not None and ages_ and max(ages_) > lasts + _CLOCK_S:
            yield _found(e, "cache-too-old", f"{name}: {max(ages_)} s old, max-age={lasts}")
            return


def _date(reply: Reply) -> float | None:
    """Its `Date`, Unix s."""
    try:
        return parsedate_to_datetime(reply.header("date")).timestamp()
    except ValueError:
        return None


def _max_age(reply: Reply) -> int | None:
    """How long it may be kept, in s; None where it does not say."""
    directives = [part.strip().lower() for part in reply.header("cache-control").split(",")]
    ages_ = [value for part in directives if (value := part.removeprefix("max-age=")) != part]
    return int(ages_[0]) if len(ages_) == 1 and ages_[0].isdecimal() and len(ages_[0]) < 12 else None


def cache_control(e: Evidence) -> Iterator[Finding]:
    """How long an answer may be kept comes back as the service said it."""
    if not e.is_ours or e.issuer is None:
        return
    wrong = []
    for name in ("discovery", "jwks"):
        reply = e.reply(name)
        if reply is None or reply.status != 200 or "no-store" in reply.header("cache-control"):
            continue
        lasts = _max_age(reply)
        if lasts is None or lasts > _MAX_AGE_S:
            wrong.append(f"{name}: {reply.header('cache-control') or 'none'}")
    token = e.reply("token")
    if token is not None and _oauth_error(token) and "no-store" not in token.header("cache-control"):
        wrong.append(f"token: {token.header('cache-control') or 'none'}")
    if wrong:
        yield _found(e, "cache-control-changed", "; ".join(wrong))


def etag(e: Evidence) -> Iterator[Finding]:
    """A strong entity tag survives, whatever is accepted."""
    plain, zipped = e.reply("discovery"), e.reply("discovery-gzip")
    if plain is None or zipped is None or not plain.header("etag").startswith('"'):
        return
    if not zipped.header("etag").startswith('"'):
        yield _found(
            e, "etag-broken-by-gzip", f"{plain.header('etag')} became {zipped.header('etag') or 'none'}"
        )


# --- what must arrive, and come back ---


def paths(e: Evidence) -> Iterator[Finding]:
    """Paths are handed on as they came."""
    token = e.reply("token")
    if token is None or token.code != "NOT_FOUND":
        return
    if _oauth_error(e.reply("token-twice")):
        yield _found(e, "path-eaten", "404 at the token endpoint; with the path twice it answers")
    elif _oauth_error(e.reply("token-root")):
        yield _found(e, "path-doubled", "404 at the token endpoint; without the path it answers")


def errors(e: Evidence) -> Iterator[Finding]:
    """The service's own errors come back."""
    for name in ("token", "authorization", "userinfo"):
        reply = e.reply(name)
        if reply is None or reply.status not in {400, 401} or not e.is_ours:
            continue
        if reply.code == "PROXY_REFUSED" or (name == "token" and not _oauth_error(reply)):
            yield _found(e, "errors-replaced", f"{reply.status} of {_ASKED[name]} is the proxy's own")
            return


_ASKED: Final = {
    "token": "token_endpoint",
    "introspection": "introspection_endpoint",
    "revocation": "revocation_endpoint",
    "userinfo": "userinfo_endpoint",
    "authorization": "authorization_endpoint",
    "end_session": "end_session_endpoint",
}


def endpoints(e: Evidence) -> Iterator[Finding]:
    """Each advertised endpoint is there, and of its kind."""
    if any(paths(e)):
        return
    for name, member in _ASKED.items():
        reply, error = e.reply(name), e.error(name)
        if error is not None:
            yield _found(e, "endpoint-unreachable", f"{member}: {error.detail}")
        elif reply is not None and reply.status in {404, 502, 503, 504}:
            ours = e.is_ours and reply.status == 404 and not reply.code
            seen = f"{member}: {reply.status} {reply.media_type}"
            yield _found(e, "endpoint-not-ours" if ours else "endpoint-unreachable", seen,
                         endpoint=e.endpoint(member) or "")  # fmt: skip


def authorization(e: Evidence) -> Iterator[Finding]:
    """`Authorization` arrives: who sends a token is told that it is wrong (RFC 6750 §3.1)."""
    reply = e.reply("userinfo")
    if e.is_ours and reply is not None and reply.status == 401:
        told = reply.header("www-authenticate")
        if "invalid_token" not in told:
            yield _found(
                e, "authorization-stripped", f"401 as for a request without a token: {told or 'nothing'}"
            )


def sizes(e: Evidence) -> Iterator[Finding]:
    """What the service takes, the proxy hands on."""
    reply, error = e.reply("body"), e.error("body")
    if (reply is not None and reply.status == 413) or (error is not None and error.kind == "protocol"):
        yield _found(e, "body-too-large-for-proxy", "413 for 60 KiB" if reply else f"60 KiB: {error}")
    reply, error = e.reply("long"), e.error("long")
    if (reply is not None and reply.status in {414, 431}) or (error is not None and error.kind == "protocol"):
        yield _found(e, "header-too-large-for-proxy", f"{reply.status if reply else error} for 6 KiB")


def methods(e: Evidence) -> Iterator[Finding]:
    """HEAD and OPTIONS arrive."""
    head, options = e.reply("discovery-head"), e.reply("discovery-options")
    if not e.is_ours:
        return
    if head is not None and head.status in {403, 405, 501}:
        yield _found(e, "methods-refused", f"HEAD: {head.status}")
    elif options is not None and options.status in {403, 405, 501}:
        yield _found(e, "methods-refused", f"OPTIONS: {options.status}")


def cors(e: Evidence) -> Iterator[Finding]:
    """Scripts of any origin may read what no cookie counts for; the header comes once."""
    if e.issuer is None:
        return
    names = ("discovery", "jwks", "token", "userinfo")
    given = {name: reply.all("access-control-allow-origin") for name in names if (reply := e.reply(name))}
    doubled = [name for name, values in given.items() if len(values) > 1 or any("," in v for v in values)]
    missing = [name for name, values in given.items() if not values]
    if doubled:
        yield _found(e, "cors-doubled", f"twice at {', '.join(doubled)}")
    if missing and e.is_ours:
        yield _found(e, "cors-missing", f"none at {', '.join(missing)}")


def cookies(e: Evidence) -> Iterator[Finding]:
    """The cookie that binds a sign-in to its browser comes back as it was set."""
    reply = e.reply("authorize")
    if reply is None or reply.status != 303 or _query(reply.location, "interaction") is None:
        return
    given = reply.all("set-cookie")
    if not given:
        yield _found(e, "cookies-stripped", "no Set-Cookie where a sign-in begins")
        return
    names = {part.strip().partition("=")[0].lower() for value in given for part in value.split(";")[1:]}
    wanted = {"httponly", "samesite", "path"} | ({"secure"} if e.options.origin.scheme == "https" else set())
    if lacking := sorted(wanted - names):
        yield _found(e, "cookies-rewritten", f"without {', '.join(lacking)}")
    elif "domain" in names:
        yield _found(e, "cookies-rewritten", "with a Domain")


def redirects(e: Evidence) -> Iterator[Finding]:
    """Redirects come back as the service sent them."""
    outside, inside = e.reply("authorize"), e.reply("authorize-inside")
    if outside is None or inside is None:
        return
    there, here = outside.location.partition("?")[0], inside.location.partition("?")[0]
    if there != here and outside.status == inside.status:
        yield _found(e, "redirects-rewritten", f"{there}; the service said {here}")


def security_headers(e: Evidence) -> Iterator[Finding]:
    """Browsers are told to come by https alone, and to take an answer for nothing else than it says."""
    probe = e.reply("probe")
    if probe is None or not e.is_reached:
        return
    if e.options.origin.scheme == "https" and not probe.header("strict-transport-security"):
        yield _found(e, "security-headers-missing", "no Strict-Transport-Security", variant="not-added")
    elif not probe.header("x-content-type-options"):
        yield _found(e, "security-headers-missing", "no X-Content-Type-Options", variant="hidden")


def inserted(e: Evidence) -> Iterator[Finding]:
    """Both forms of the well-known address are served (RFC 8414 §3.1)."""
    missing = [
        name
        for name in ("inserted-oidc", "inserted-oauth")
        if e.answers.get(name) is not None and _issuer(e.reply(name)) != e.issuer
    ]
    if missing and e.issuer == e.options.url:
        yield _found(e, "inserted-well-known-missing", "no document of this issuer there")


# --- what must be closed ---


def _is_a_developers(e: Evidence) -> bool:
    """Whether the address can only be asked on its own machine, as `make run` has it: nobody is outside."""
    origin = e.options.origin
    return origin.scheme == "http" and origin.name in {"localhost", *_LOOPBACK}


def closed(e: Evidence) -> Iterator[Finding]:
    """What only the app's backends and the operator need is closed to others."""
    open_ = [
        (variant, what)
        for name, variant, what in (
            ("closed-users", "trees", "/api/auth/users/"),
            ("closed-clients", "trees", "/api/oidc/"),
            ("closed-session", "session", "POST /api/auth/session"),
        )
        if (reply := e.reply(name)) is not None and reply.code == "FORBIDDEN"
    ]
    ready = e.reply("closed-readyz")
    ready_open = (
        ready is not None and ready.status in {200, 503} and not ready.code and bool(ready.json_object())
    )
    probe = e.reply("probe")
    if probe is not None and probe.asked_from in _LOOPBACK:
        if open_ or ready_open:
            yield _found(e, "admin-reachable", "asked from this machine")
        return
    if open_:
        yield _found(e, "admin-open", ", ".join(what for _, what in open_), variant=open_[0][0])
    if ready_open:
        yield _found(e, "readyz-open", "the parts of the service are listed")


def dev_mode(e: Evidence) -> Iterator[Finding]:
    """Nobody signs in as anyone."""
    reply = e.reply("closed-dev")
    is_open = reply is not None and reply.status == 200 and reply.media_type == "text/html"
    if is_open and not _is_a_developers(e):
        yield _found(e, "dev-sign-in-open", "200 at /dev/sign-in")


def plain_http(e: Evidence) -> Iterator[Finding]:
    """Plain http leads to https."""
    reply = e.reply("http")
    if reply is None:
        return
    # Beside another port than 443, port 80 may well be another site's.
    if e.options.origin.port != 443 and _issuer(reply) is None:
        return
    if reply.status < 300 or (reply.location and not reply.location.startswith("https://")):
        yield _found(e, "http-without-redirect", f"{reply.status} {reply.location}".strip())


# --- tokens ---


def readiness(e: Evidence) -> Iterator[Finding]:
    """The application can do its work, as it says itself on the inside."""
    told = e.readiness
    if told.get("status", "ok") == "ok":
        return
    parts = {part: told.get(part) for part in ("database", "schema", "keys")}
    case = next((part for part in ("database", "keys") if parts[part] == "unavailable"), "schema")
    yield _found(e, "not-ready", ", ".join(f"{part}: {state}" for part, state in parts.items()), variant=case)


def ring(e: Evidence) -> Iterator[Finding]:
    """Keys that rotate by themselves do so in time; how old they are and what comes next is worth knowing."""
    late, change = e.readiness.get("rotation_overdue"), e.readiness.get("next_key_change")
    if isinstance(late, list) and late:
        yield _found(e, "key-rotation-overdue", f"{counted(len(late), 'key')}: {', '.join(map(str, late))}")
    keys_ = e.readiness.get("signing_keys")
    told = [_change(change)] if isinstance(change, dict) else []
    ages_: dict[str, list[str]] = {}
    for key in keys_ if isinstance(keys_, list) else []:
        if isinstance(key, dict):
            ages_.setdefault(str(key.get("alg")), []).append(_age(key))
    told += [f"{alg}: {', '.join(keys)}" for alg, keys in ages_.items()]
    if told:
        yield _found(e, "signing-keys", "; ".join(told))


def _change(change: Mapping[str, Any]) -> str:
    which = change.get("kid") or f"a key for {change.get('alg')}"
    return f"{_moment(change.get('at'))}: {which} {change.get('what')}"


def _age(key: Mapping[str, Any]) -> str:
    age_s = key.get("age_s")
    return f"{key.get('role')} {counted(age_s // 86400, 'day') if isinstance(age_s, int) else '?'}"


def _moment(at: object) -> str:
    """Unix s as a date; `?` for what is none."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if isinstance(at, int) else "?"
    except (ValueError, OverflowError, OSError):
        return "?"


def inside(e: Evidence) -> Iterator[Finding]:
    """The inside address does what it is asked."""
    reply, error = e.reply("inside"), e.error("inside")
    if error is not None:
        yield _found(e, "inside-unreachable", error.detail or error.kind)
    elif reply is not None and reply.status != 201:
        yield _found(e, "inside-unreachable", f"{reply.status} {reply.code}")


def token_issuer(e: Evidence) -> Iterator[Finding]:
    """A minted token's `iss` is discovery's issuer."""
    told = {str(token.claims.get("iss")) for token in e.minted}
    if len(told) != 1 or e.issuer is None or told == {e.issuer}:
        return
    (given,) = told
    slash = given.rstrip("/") == e.issuer.rstrip("/")
    yield _found(e, "issuer-trailing-slash" if slash else "token-issuer", f"iss {given}", variant="token")


def tokens(e: Evidence) -> Iterator[Finding]:
    """A fresh token verifies with nothing but the issuer, as a stock library does it."""
    refused = [reply for reply in e.replies("mint-") if reply.status != 200]
    if refused and refused[0].code != "JWT_NOT_CONFIGURED":
        yield _found(e, "token-invalid", f"minting: {refused[0].status} {refused[0].code}")
        return
    due = [*e.minted[:1], *([e.id_token] if e.id_token is not None else [])]
    for token in due:
        if (fault := _fault(e, token)) is not None:
            yield _found(e, "token-invalid", fault)
            return


def _fault(e: Evidence, token: UnverifiedToken) -> str | None:
    """Why a token does not verify; None when it does, or cannot be checked from outside."""
    alg = str(token.header.get("alg"))
    algs = e.document.get("id_token_signing_alg_values_supported")
    if not isinstance(algs, list) or alg not in algs:
        return f"alg {alg} is not advertised" if alg != "HS256" else None
    if alg == "HS256":
        return None
    key = next((key for key in e.keys if key.get("kid") == token.header.get("kid")), None)
    if key is None:
        return None  # told by `keys`
    if not verifies_by_jwk(token.text, key, alg=alg):
        return "the signature is not that of the published key"
    jwks, exp = e.reply("jwks"), token.claims.get("exp")
    now = 0.0 if jwks is None else jwks.received_at
    return "it has expired already" if not isinstance(exp, int) or exp < now - _CLOCK_S else None


def flow(e: Evidence) -> Iterator[Finding]:
    """A whole sign-in comes to its end."""
    for step, seen in e.flow.items():
        if step == "refused":
            yield _found(e, "client-refused", seen)
        elif step not in {"done", "consent"}:
            yield _found(e, "flow-broken", f"{step}: {seen}")


# --- worth knowing ---


def notes(e: Evidence) -> Iterator[Finding]:
    """What is no fault."""
    if e.issuer is None:
        return
    if not e.is_ours:
        yield _found(e, "not-ours", shown(e.issuer))
    elif e.document.get("id_token_signing_alg_values_supported") == ["HS256"]:
        yield _found(e, "hs256-only", "HS256 alone is advertised")
    if e.is_ours and e.is_derived and e.issuer == e.options.url:
        yield _found(e, "issuer-from-host", "no-store, Vary: Host")
    given = {
        "no client": e.options.client_id and e.options.redirect_uri,
        "no session": e.options.session or (e.options.admin_url and e.options.admin_token),
    }
    if e.is_ours and not all(given.values()):
        yield _found(e, "not-all-asked", ", ".join(name for name, told in given.items() if not told))
    handshake = e.reply("http2")
    if handshake is not None and handshake.alpn != "h2":
        yield _found(e, "http2-missing", handshake.alpn or "no protocol was agreed on")


#: In the order in which causes come before what follows from them.
RULES: Final[Sequence[Rule]] = (
    clock, connection, old_tls, addresses, gateway, redirect, no_document, replicas_issuer, hosts, issuer, metadata, forwarded,
    errors, paths, endpoints, methods, authorization, sizes, keys, token_issuer, redirects, cookies, cors, replicas, ages, cache_control, etag,
    plain_http, dev_mode, closed, security_headers, inserted, readiness, inside, tokens, flow, ring, notes,
)  # fmt: skip

_NO_DOCUMENT: Final = frozenset(
    {"bad-gateway", "stale-upstream", "well-known-redirected", "well-known-is-html", "well-known-not-found"}
    | {"malformed-document", "metadata-invalid", "path-eaten", "path-doubled", "issuer-path", "issuer-case"}
)
_ISSUERS: Final = frozenset(
    {"host-not-forwarded", "port-dropped", "issuer-name", "issuer-port", "issuer-scheme-http"}
    | {"issuer-trailing-slash", "issuer-path", "issuer-case", "replicas-differ-issuer"}
)
#: Consequence -> what it may follow from.
FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        ("endpoint-unreachable", "endpoint-not-ours", "inserted-well-known-missing"), _NO_DOCUMENT
    ),
    **dict.fromkeys(("issuer-name", "token-issuer", "issuer-trailing-slash", "endpoint-elsewhere"), _ISSUERS),
    "metadata-invalid": _ISSUERS | _NO_DOCUMENT,
    "cache-ignores-host": _ISSUERS,
    "cache-poisoned": frozenset({"forwarded-host-believed", "cache-ignores-host"}),
    "token-invalid": _ISSUERS
    | {"clock-off", "authorization-stripped", "replicas-differ-keys", "jwks-cached-too-long", "path-eaten"}
    | {"path-doubled", "errors-replaced", "endpoint-not-ours", "inside-unreachable", "not-ready"},
    "flow-broken": _ISSUERS
    | {
        "authorization-stripped",
        "cookies-stripped",
        "cookies-rewritten",
        "redirects-rewritten",
        "endpoint-not-ours",
    }
    | {
        "path-eaten",
        "path-doubled",
        "errors-replaced",
        "clock-off",
        "inside-unreachable",
        "not-ready",
        "replicas-differ-keys",
    }
    | {"body-too-large-for-proxy", "header-too-large-for-proxy"},
    "authorization-stripped": frozenset({"errors-replaced", "endpoint-not-ours"}),
    "cors-missing": frozenset({"errors-replaced", "endpoint-not-ours", "path-eaten", "path-doubled"}),
    "body-too-large-for-proxy": frozenset({"endpoint-not-ours"}),
    "forwarded-proto-believed": frozenset({"well-known-redirected"}),
    "inside-unreachable": _ISSUERS | {"not-ready"},
}


def examine(e: Evidence) -> list[Finding]:
    """All findings, each cause followed by what follows from it.

    Args:
        e: what came back.
    """
    found: list[Finding] = []
    for rule in RULES:
        for finding in rule(e):
            cause = next((f for f in found if f.kind.id in FOLLOWS.get(finding.kind.id, ())), None)
            root = cause and (cause.follows_from or cause.kind.id)
            found.append(replace(finding, follows_from=root) if root else finding)
    weight = {"error": 0, "warning": 1, "note": 2}
    causes = sorted((f for f in found if not f.follows_from), key=lambda f: weight[f.kind.severity])
    ordered = []
    for finding in causes:
        ordered += [finding, *(f for f in found if f.follows_from == finding.kind.id)]
    return ordered
