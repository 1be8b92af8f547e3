"""From answers to findings: one small function for each question, in one ordered table, causes first.

Each rule reads the evidence and yields findings. No rule sends a request or knows another rule. `FOLLOWS` says which
finding follows from which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from service.doctor.catalogue import Finding, shown
from service.doctor.evidence import Evidence
from service.doctor.rules import (
    browser,
    caches,
    clients,
    closed,
    connection,
    document,
    handed_on,
    refusals,
    replicas,
    strangers,
    tokens,
)
from service.doctor.rules.reading import Rule, found


def notes(e: Evidence) -> Iterator[Finding]:
    """Notes that are not faults."""
    if e.issuer is None:
        return
    if not e.is_ours:
        yield found(e, "not-ours", shown(e.issuer))
    elif e.document.get("id_token_signing_alg_values_supported") == ["HS256"]:
        yield found(e, "hs256-only", "only HS256 is advertised")
    if e.is_ours and e.is_derived and e.issuer == e.options.url:
        yield found(e, "issuer-from-host", "no-store, Vary: Host")
    given = {
        "no client": e.options.has_client,
        "no session": e.options.session or e.options.inside,
        "no client secret": "no-secret" not in e.flow,
    }
    if e.is_ours and not all(given.values()):
        yield found(e, "not-all-asked", ", ".join(name for name, told in given.items() if not told))
    handshake = e.reply("handshake")
    if handshake is not None and handshake.alpn != "h2":
        yield found(e, "http2-missing", handshake.alpn or "no protocol was agreed on")


#: The rules, with causes before their consequences.
RULES: Final[Sequence[Rule]] = (
    replicas.clocks, caches.clock, connection.addresses, connection.connection, connection.old_tls, refusals.refusals,
    connection.gateway, tokens.readiness, replicas.stores, document.redirect, document.no_document, replicas.replicas_issuer,
    document.hosts, document.issuer, document.metadata, document.document_of_another, document.forwarded,
    handed_on.methods, handed_on.errors, handed_on.paths, handed_on.endpoints, handed_on.authorization, handed_on.bodies, handed_on.sizes,
    handed_on.answer_sizes, caches.private_answers, replicas.keys, replicas.clients, replicas.secrets, replicas.client_secret, replicas.replicas,
    tokens.token_issuer, browser.redirects, browser.cookies, browser.cors, caches.ages, caches.cache_control, caches.etag,
    closed.plain_http, closed.dev_mode, closed.closed, browser.sign_in_page, browser.security_headers, handed_on.inserted,
    tokens.inside, tokens.tokens, tokens.flow, connection.unanswered, connection.certificate_ends, tokens.ring, clients.pkce, clients.keys, clients.deliveries,
    strangers.registration, strangers.audiences, notes,
)  # fmt: skip

_NO_DOCUMENT: Final = frozenset(
    {"bad-gateway", "stale-upstream", "well-known-redirected", "well-known-is-html", "well-known-not-found"}
    | {"malformed-document", "metadata-invalid", "path-eaten", "path-doubled", "issuer-path", "issuer-case"}
    | {"discovery-not-ours", "host-refused"}
)
_ISSUERS: Final = frozenset(
    {"host-not-forwarded", "port-dropped", "issuer-name", "issuer-port", "issuer-scheme-http", "host-refused"}
    | {"issuer-trailing-slash", "issuer-path", "issuer-case", "replicas-differ-issuer", "discovery-not-ours"}
)
#: Causes that may have nearly every other finding as a consequence.
_BETWEEN: Final = frozenset({"refused-by-proxy", "bad-gateway", "not-ready"})
_REPLICAS: Final = frozenset(
    {
        "replica-without-database",
        "replicas-differ-database",
        "replicas-differ-secret",
        "replicas-differ-clock",
    }
    | {"replicas-differ-keys"}
)
_ENDPOINTS: Final = frozenset({"endpoint-not-ours", "endpoint-unreachable"})
#: Consequence -> its possible causes.
FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        ("endpoint-unreachable", "endpoint-not-ours", "inserted-well-known-missing"),
        _NO_DOCUMENT | _BETWEEN | {"replica-without-database", "response-header-too-large"},
    ),
    **dict.fromkeys(("issuer-name", "token-issuer", "issuer-trailing-slash", "endpoint-elsewhere"), _ISSUERS),
    **dict.fromkeys(
        (
            *("well-known-redirected", "well-known-not-found", "stale-upstream", "well-known-is-html"),
            *("methods-refused", "cache-control-changed", "security-headers-missing"),
            "header-too-large-for-proxy",
        ),
        _BETWEEN,
    ),
    "certificate-expired": frozenset({"addresses-differ"}),
    "certificate-wrong-name": frozenset({"addresses-differ"}),
    "connection-refused": frozenset({"addresses-differ"}),
    "clock-off": frozenset({"replicas-differ-clock"}),
    "metadata-invalid": _ISSUERS | _NO_DOCUMENT,
    "cache-ignores-host": _ISSUERS,
    "cache-poisoned": frozenset({"forwarded-host-believed", "cache-ignores-host"}),
    "errors-replaced": _BETWEEN,
    "token-invalid": _ISSUERS | _BETWEEN | _REPLICAS | _ENDPOINTS
    | {"clock-off", "authorization-stripped", "jwks-cached-too-long", "jwks-not-ours", "path-eaten", "path-doubled"}
    | {"errors-replaced", "inside-unreachable", "method-changed"},
    "jwks-invalid": _BETWEEN | _ENDPOINTS,
    "flow-broken": _ISSUERS | _BETWEEN | _REPLICAS | _ENDPOINTS | _NO_DOCUMENT
    | {"authorization-stripped", "cookies-stripped", "cookies-rewritten", "redirects-rewritten", "errors-replaced"}
    | {"clock-off", "inside-unreachable", "client-refused", "private-answers-cached", "method-changed", "body-not-handed-on"}
    | {"body-too-large-for-proxy", "header-too-large-for-proxy", "response-header-too-large"},
    "authorization-stripped": frozenset({"errors-replaced"}) | _BETWEEN | _ENDPOINTS,
    "cors-missing": frozenset({"errors-replaced", "path-eaten", "path-doubled", "methods-refused", "discovery-not-ours"})
    | _BETWEEN | _ENDPOINTS,
    "body-too-large-for-proxy": _BETWEEN | _ENDPOINTS,
    "client-refused": _BETWEEN | {"replica-without-database"},
    "replicas-differ-secret": frozenset({"client-refused"}),
    "cookies-stripped": frozenset({"client-refused"}) | _REPLICAS,
    "jwks-cached-too-long": frozenset({"discovery-not-ours"}),
    "cache-too-old": frozenset({"jwks-cached-too-long"}),
    "replicas-differ": _REPLICAS,
    "response-header-too-large": frozenset({"bad-gateway"}),
    "forwarded-proto-believed": frozenset({"well-known-redirected"}),
    "inside-unreachable": _ISSUERS | _BETWEEN,
    "login-page-missing": frozenset({"redirects-rewritten", "refused-by-proxy"}),
    "too-slow": frozenset({"refused-by-proxy"}),
    "not-answered": frozenset({"refused-by-proxy", "bad-gateway", "body-too-large-for-proxy", "header-too-large-for-proxy"})
    | _ENDPOINTS,
}  # fmt: skip


def examine(e: Evidence) -> list[Finding]:
    """All findings, each cause followed by its consequences.

    Args:
        e: the answers.
    """
    told: list[Finding] = []
    for rule in RULES:
        for finding in rule(e):
            cause = next((f for f in told if f.kind.id in FOLLOWS.get(finding.kind.id, ())), None)
            root = cause and (cause.follows_from or cause.kind.id)
            told.append(replace(finding, follows_from=root) if root else finding)
    weight = {"error": 0, "warning": 1, "note": 2}
    causes = sorted((f for f in told if not f.follows_from), key=lambda f: weight[f.severity])
    ordered = []
    for finding in causes:
        ordered += [finding, *(f for f in told if f.follows_from == finding.kind.id)]
    return ordered
