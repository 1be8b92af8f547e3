"""What the proxy passes: paths, methods, headers, bodies, the service's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from service.doctor.catalogue import Finding, shown
from service.doctor.evidence import Evidence
from service.doctor.rules.reading import (
    GATEWAY,
    cannot_reach_store,
    cookie_is_lost,
    found,
    is_oauth_error,
    is_own,
    issuer_of,
    without_query,
)

#: How a connection ends if its request was too long.
_BROKEN_OFF: Final = frozenset({"protocol", "closed"})
#: Endpoints for programs, which do not follow a redirect with a POST.
_NEVER_REDIRECTED: Final = {
    "token": "token_endpoint",
    "introspection": "introspection_endpoint",
    "revocation": "revocation_endpoint",
    "userinfo": "userinfo_endpoint",
    "jwks": "jwks_uri",
}
_ASKED: Final = {
    "token": "token_endpoint",
    "introspection": "introspection_endpoint",
    "revocation": "revocation_endpoint",
    "userinfo": "userinfo_endpoint",
    "authorization": "authorization_endpoint",
    "end_session": "end_session_endpoint",
}


def paths(e: Evidence) -> Iterator[Finding]:
    """Paths are passed unchanged."""
    token = e.reply("token")
    if token is None or token.code != "NOT_FOUND":
        return
    if is_oauth_error(e.reply("token-twice")):
        yield found(e, "path-eaten", "404 at the token endpoint; with the path twice it answers")
    elif is_oauth_error(e.reply("token-root")):
        yield found(e, "path-doubled", "404 at the token endpoint; without the path it answers")


def errors(e: Evidence) -> Iterator[Finding]:
    """The service's own errors arrive."""
    if not e.is_ours:
        return
    for name in ("token", "authorization", "userinfo"):
        reply = e.reply(name)
        if reply is None or reply.status not in {400, 401}:
            continue
        if reply.code == "PROXY_REFUSED" or (name == "token" and not is_oauth_error(reply)):
            yield found(e, "errors-replaced", f"{reply.status} of {_ASKED[name]} is the proxy's own")
            return
    # At one address, the service refuses GET and somebody else answers POST with 404: the 404 is the service's too.
    asked, posted = e.reply("trusted-get"), e.reply("trusted-post")
    if (
        asked is None
        or posted is None
        or asked.code != "METHOD_NOT_ALLOWED"
        or posted.status not in {401, 404}
    ):
        return
    if not is_own(posted):
        yield found(e, "errors-replaced", f"{posted.status} of the service's paths is the proxy's own")


def endpoints(e: Evidence) -> Iterator[Finding]:
    """Each advertised endpoint exists, and answers as its kind does."""
    if any(paths(e)):
        return
    for name, member in _NEVER_REDIRECTED.items():
        reply = e.reply(name)
        if e.is_ours and reply is not None and reply.location:
            seen = f"{member} {e.endpoint(member)}: {reply.status} to {shown(without_query(reply.location), 100)}"
            yield found(e, "endpoint-unreachable", seen, variant="redirected")
            return  # usually one rule for all of them
    for name, member in _ASKED.items():
        reply, error = e.reply(name), e.error(name)
        where = e.endpoint(member) or ""
        if error is not None:
            yield found(e, "endpoint-unreachable", f"{member} {where}: {error.detail}")
        elif reply is not None and reply.status in {404, 502, 503, 504} and not cannot_reach_store(reply):
            ours = e.is_ours and reply.status == 404 and not reply.code
            seen = f"{member} {where}: {reply.status} {reply.media_type}"
            yield found(e, "endpoint-not-ours" if ours else "endpoint-unreachable", seen, endpoint=where)


def authorization(e: Evidence) -> Iterator[Finding]:
    """`Authorization` arrives: a client with a wrong token is refused because of it (RFC 6750 §3.1)."""
    reply = e.reply("userinfo")
    if not e.is_ours or reply is None or reply.status != 401:
        return
    told, bare = reply.header("www-authenticate"), e.reply("userinfo-bare")
    if "invalid_token" in told:
        return
    if not told and is_oauth_error(reply) and bare is not None and bare.body != reply.body:
        seen = "401 without WWW-Authenticate at the userinfo endpoint"
        yield found(e, "errors-replaced", seen, variant="header")
        return
    seen = f"401 as for a request without a token: {told or 'nothing'}"
    if cookie_is_lost(e):
        yield found(e, "authorization-stripped", f"{seen}; Cookie does not arrive either", variant="all")
    else:
        yield found(e, "authorization-stripped", seen)


def bodies(e: Evidence) -> Iterator[Finding]:
    """Forms arrive: a request with a client and a code is refused because of the code."""
    told = {str(reply.json_object().get("error")) for reply in e.replies("client")}
    if e.is_ours and told == {"invalid_request"}:
        seen = "invalid_request at the token endpoint, as to a request without a form"
        yield found(e, "body-not-handed-on", seen)


def sizes(e: Evidence) -> Iterator[Finding]:
    """The proxy passes everything that the service accepts, and everything that it answers."""
    reply, error = e.reply("body"), e.error("body")
    if (reply is not None and reply.status == 413) or (error is not None and error.kind in _BROKEN_OFF):
        yield found(e, "body-too-large-for-proxy", "413 for 60 KiB" if reply else f"60 KiB: {error}")
    reply, error = e.reply("long"), e.error("long")
    if (reply is not None and reply.status in {414, 431}) or (
        error is not None and error.kind in _BROKEN_OFF
    ):
        seen = f"{reply.status if reply else error} for an address of 6 KiB"
        yield found(e, "header-too-large-for-proxy", seen, variant="line")
        return
    short, long_, error = e.reply("unknown-client"), e.reply("long-field"), e.error("long-field")
    if short is None or not is_own(short):
        return
    if (long_ is not None and not is_own(long_) and long_.status in {400, 413, 414, 431, 494}) or (
        error is not None and error.kind in _BROKEN_OFF
    ):
        seen = f"{long_.status if long_ else error} for a Cookie header of 4 KiB"
        yield found(e, "header-too-large-for-proxy", seen, variant="field")


def answer_sizes(e: Evidence) -> Iterator[Finding]:
    """The redirects of the authorization endpoint arrive, even if the client's `state` is long."""
    short = e.reply("unknown-client")
    if short is None or not is_own(short):
        return
    asked = [*e.replies("authorize"), *e.replies("silent"), *e.replies("long-state")]
    lost = [reply for reply in asked if reply.status in GATEWAY and not is_own(reply)]
    well = [reply for reply in [*e.replies("authorize"), *e.replies("silent")] if reply not in lost]
    if lost and (lost == e.replies("long-state") or not well):
        seen = f"{lost[0].status} to a request whose redirect has a long header; short ones are answered"
        yield found(e, "response-header-too-large", seen)


def methods(e: Evidence) -> Iterator[Finding]:
    """HEAD, OPTIONS and POST arrive."""
    if not e.is_ours:
        return
    for name in ("token", "mint-1", "closed-session"):
        reply = e.reply(name)
        if reply is not None and reply.status == 405 and "POST" in reply.header("allow").upper():
            yield found(e, "method-changed", f"405 to a POST, where POST is allowed ({_asked_at(name)})")
            return
    for name in ("head", "options"):
        reply = e.reply(f"discovery-{name}")
        if reply is not None and reply.status in {403, 405, 501}:
            yield found(e, "methods-refused", f"{name.upper()}: {reply.status}")
            return


def _asked_at(name: str) -> str:
    return {"token": "the token endpoint", "mint-1": "/api/auth/jwt"}.get(name, "/api/auth/session")


def inserted(e: Evidence) -> Iterator[Finding]:
    """Both forms of the well-known address work (RFC 8414 §3.1)."""
    missing = [
        name
        for name in ("inserted-oidc", "inserted-oauth")
        if e.answers.get(name) is not None and issuer_of(e.reply(name)) != e.issuer
    ]
    if missing and e.issuer == e.options.url:
        yield found(e, "inserted-well-known-missing", "no document of this issuer there")
