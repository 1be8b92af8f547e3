"""The discovery document, its issuer, and who can change it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from service.doctor.catalogue import Finding, shown
from service.doctor.evidence import NOBODY, Evidence
from service.doctor.reply import Origin
from service.doctor.rules.reading import (
    GATEWAY,
    found,
    is_a_developers,
    is_oauth_error,
    issuer_of,
    without_query,
)

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


def redirect(e: Evidence) -> Iterator[Finding]:
    """Discovery is answered without a redirect (Discovery §4.2)."""
    reply = e.reply("discovery")
    if reply is None or not reply.location:
        return
    seen = f"{reply.status} to {without_query(reply.location)}"
    told = e.reply("discovery-proto")
    if told is not None and told.status == 200:
        yield found(e, "forwarded-proto-believed", f"{seen}; none with X-Forwarded-Proto: https")
        return
    probe = e.reply("probe")
    everything = probe is not None and bool(probe.location)
    yield found(e, "well-known-redirected", seen, variant="everything" if everything else "this")


def no_document(e: Evidence) -> Iterator[Finding]:
    """There is a document, and it is the service's own."""
    reply = e.reply("discovery")
    if reply is None or e.issuer is not None or reply.location or reply.status in GATEWAY:
        return
    seen = f"{reply.status} {reply.media_type}"
    if reply.code == "INVALID_HOST":
        yield _refused_host(e, seen)
    elif reply.code == "NOT_FOUND":
        yield from _elsewhere(e, seen)
    elif reply.status == 200 and reply.json_object():
        yield found(e, "metadata-invalid", "issuer is missing, or not a string")
    elif reply.status == 200 and reply.media_type != "text/html":
        size = "more than 256 KiB" if reply.truncated else f"{len(reply.body)} bytes"
        yield found(e, "malformed-document", f"{seen}, {size} that are not a JSON object")
    elif e.is_reached or is_oauth_error(e.reply("token-probe")):
        yield found(e, "well-known-is-html" if reply.status == 200 else "well-known-not-found", seen)
    else:
        variant = "upstream" if e.reply("readyz-inside") is not None else ""
        yield found(
            e, "stale-upstream", f"{seen}; nothing here answers like an OpenID provider", variant=variant
        )


def _refused_host(e: Evidence, seen: str) -> Finding:
    """Whether the proxy changed the Host, or the service refuses it: the inside address shows it."""
    within = e.reply("discovery-inside")
    if within is not None and within.code == "INVALID_HOST":
        told = f"{seen}, inside too: {e.options.origin.host} is not in PYLON_ALLOWED_HOSTS"
        return found(e, "host-refused", told)
    told = f"{seen}: the service refused the Host that the proxy sent"
    if within is None:
        told += ", unless PYLON_ALLOWED_HOSTS does not have this name (--admin-url would show it)"
    return found(e, "host-not-forwarded", told)


def _elsewhere(e: Evidence, seen: str) -> Iterator[Finding]:
    """The service answers, but its issuer is another address: say which."""
    at = {name: issuer_of(e.reply(f"discovery-{name}")) for name in ("folded", "twice", "root")}
    if at["folded"] is not None:
        yield found(e, "issuer-case", f"{seen}; at {at['folded']} it is found")
    elif at["twice"] is not None:
        yield found(e, "path-eaten", f"{seen}; with the path {e.options.path} twice it is found")
    elif at["root"] == e.options.url:
        yield found(e, "path-doubled", f"{seen}; without the path it is found")
    else:
        where = f"; at {at['root']} it is found" if at["root"] is not None else ""
        yield found(
            e, "issuer-path", f"{seen}: the service is here, and its issuer is another address{where}"
        )


def issuer(e: Evidence) -> Iterator[Finding]:
    """The issuer is the address, byte for byte (Discovery §4.3)."""
    given, url = e.issuer, e.options.url
    if given is None or given == url:
        return
    place = next((n for n, pair in enumerate(zip(given, url, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(given), len(url)) if place is None else place
    seen = f"{shown(given, 100)} (differs from character {at + 1} on)"
    if issuer_of(e.reply("discovery-inside")) == url and not e.is_derived:
        yield found(e, "discovery-not-ours", f"{seen}; inside the issuer is right", variant="another")
        return
    # An issuer over http is only for this machine: no setting opens it to others.
    usable = e.options.origin.scheme == "https" or is_a_developers(e)
    yield found(e, _difference(e, given), seen, variant="document" if usable else "http")


def _difference(e: Evidence, given: str) -> str:
    """The first difference that applies."""
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


def document_of_another(e: Evidence) -> Iterator[Finding]:
    """The document is the service's own: as on the inside, or as far as its addresses show."""
    within = e.reply("discovery-inside")
    inside = {} if within is None else within.json_object()
    if e.issuer != e.options.url or not e.is_reached:
        return
    if inside.get("issuer") == e.issuer:
        other = [name for name in _URLS if name in inside and inside[name] != e.document.get(name)]
    else:
        here = {name: e.endpoint(name) for name in _URLS}
        other = [
            name for name, path in here.items() if path and not path.startswith(f"{e.options.path}/oidc/")
        ]
    if other:
        given = [str(e.document.get(name)) for name in other]
        paths = [urlsplit(str(inside.get(name))).path for name in other]
        # The service's own addresses with another name: another program's document has other paths.
        is_rewritten = all(path and each.endswith(path) for each, path in zip(given, paths, strict=True))
        seen = f"{other[0]} is {shown(given[0], 120)}"
        yield found(e, "discovery-not-ours", seen, variant="rewritten" if is_rewritten else "another")


def metadata(e: Evidence) -> Iterator[Finding]:
    """The document's members exist, each with the right type (Discovery §3)."""
    if e.issuer is None:
        return
    wrong = [name for name in _URLS if Origin.of(str(e.document.get(name))) is None]
    wrong += [name for name in _MORE_URLS if name in e.document and Origin.of(str(e.document[name])) is None]
    wrong += [name for name in _LISTS if not _is_list_of_text(e.document.get(name))]
    if wrong:
        yield found(e, "metadata-invalid", f"missing or of another type: {', '.join(wrong)}")
        return
    elsewhere = [name for name in (*_URLS, *_MORE_URLS) if name in e.document and e.endpoint(name) is None]
    if elsewhere and e.issuer == e.options.url:
        yield found(e, "endpoint-elsewhere", f"not at {e.options.origin}: {', '.join(elsewhere)}")


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


# --- what others send ---


def forwarded(e: Evidence) -> Iterator[Finding]:
    """Headers that anyone may send change nothing."""
    reply = e.reply("forged-forwarded")
    told = issuer_of(reply)
    if reply is not None and (
        reply.code == "INVALID_HOST"
        or NOBODY in reply.location
        or (reply.status == 200 and told is not None and told not in _without_forging(e))
    ):
        yield found(e, "forwarded-host-believed", told or f"{reply.status} {reply.code or reply.location}")
    reply = e.reply("forged-proto")
    if reply is None or (e.issuer or "").startswith("http://"):
        return
    if reply.location or (issuer_of(reply) or "").startswith("http://"):
        seen = f"{reply.status} to {reply.location}" if reply.location else str(issuer_of(reply))
        yield found(e, "forwarded-proto-believed", seen)


def _without_forging(e: Evidence) -> set[str | None]:
    """The issuers in ordinary answers: more than one if replicas differ."""
    return {e.issuer, *(issuer_of(e.reply(name)) for name in ("discovery-2", "discovery-3"))}


def hosts(e: Evidence) -> Iterator[Finding]:
    """Other names are refused, and no cache mixes up names."""
    told = issuer_of(e.reply("forged-host"))
    after = [issuer_of(e.reply(name)) for name in ("discovery-2", "discovery-3")]
    if told is not None and told == e.issuer and e.is_derived and e.issuer == e.options.url:
        yield found(e, "cache-ignores-host", f"another name got {told}")
    elif any(each is not None and "doctor-probe" in each for each in after):
        yield found(e, "cache-ignores-host", f"after another name had asked: {after}")
    elif any(each is not None and NOBODY in each for each in after):
        yield found(e, "cache-poisoned", f"after a forged request: {after}")
    told = issuer_of(e.reply("forged-nobody"))
    if told is not None and NOBODY in told and not is_a_developers(e):
        yield found(e, "any-host-answered", f"Host: {NOBODY} got {told}")
