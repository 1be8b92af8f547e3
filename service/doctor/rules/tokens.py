"""The service's own report, tokens, and a whole sign-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from service.doctor.catalogue import Finding, counted
from service.doctor.evidence import Evidence, UnverifiedToken
from service.doctor.rules.reading import CLOCK_S, cannot_reach_store, found
from service.doctor.sign_in import STEPS
from service.keys.signing import verifies_by_jwk


def readiness(e: Evidence) -> Iterator[Finding]:
    """The application works, as it reports itself: on the inside, or by each of its answers."""
    told = e.readiness
    if told.get("status", "ok") != "ok":
        parts = {part: told.get(part) for part in ("database", "schema", "keys")}
        case = next((part for part in ("database", "keys") if parts[part] == "unavailable"), "schema")
        yield found(
            e, "not-ready", ", ".join(f"{part}: {state}" for part, state in parts.items()), variant=case
        )
        return
    asked = e.replies("userinfo")
    if asked and all(map(cannot_reach_store, asked)):
        yield found(e, "not-ready", "503: the database cannot be reached", variant="database")


def ring(e: Evidence) -> Iterator[Finding]:
    """Keys that rotate automatically do so in time; their age and the next step are noted."""
    if e.readiness.get("ring_refused") is True:
        yield found(e, "ring-refused", "ring_refused in readyz")
    older = e.readiness.get("ring_older")
    if isinstance(older, dict):
        version, seen = (
            at if isinstance(at := older.get(name), int) else "?" for name in ("version", "seen")
        )
        yield found(e, "ring-older", f"version {version}, where version {seen} was seen")
    late, change = e.readiness.get("rotation_overdue"), e.readiness.get("next_key_change")
    if isinstance(late, list) and late:
        yield found(e, "key-rotation-overdue", f"{counted(len(late), 'key')}: {', '.join(map(str, late))}")
    listed = e.readiness.get("signing_keys")
    told = [_change(change)] if isinstance(change, dict) else []
    ages: dict[str, list[str]] = {}
    for key in listed if isinstance(listed, list) else []:
        if isinstance(key, dict):
            ages.setdefault(str(key.get("alg")), []).append(_age(key))
    told += [f"{alg}: {', '.join(keys)}" for alg, keys in ages.items()]
    if told:
        yield found(e, "signing-keys", "; ".join(told))


def _change(change: Mapping[str, Any]) -> str:
    which = change.get("kid") or f"a key for {change.get('alg')}"
    return f"{_moment(change.get('at'))}: {which} {change.get('what')}"


def _age(key: Mapping[str, Any]) -> str:
    age_s = key.get("age_s")
    return f"{key.get('role')} {counted(age_s // 86400, 'day') if isinstance(age_s, int) else '?'}"


def _moment(at: object) -> str:
    """Unix s as a date; `?` for any other value."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if isinstance(at, int) else "?"
    except (ValueError, OverflowError, OSError):
        return "?"


def inside(e: Evidence) -> Iterator[Finding]:
    """The inside address works."""
    reply, error = e.reply("inside"), e.error("inside") or e.error("readyz-inside")
    if error is not None:
        yield found(e, "inside-unreachable", error.detail or error.kind, variant="address")
    elif reply is not None and reply.status != 201:
        variant = "token" if reply.status in {401, 403} else ""
        yield found(e, "inside-unreachable", f"{reply.status} {reply.code}", variant=variant)


def token_issuer(e: Evidence) -> Iterator[Finding]:
    """A minted token's `iss` is discovery's issuer."""
    told = {str(token.claims.get("iss")) for token in e.minted}
    if len(told) != 1 or e.issuer is None or told == {e.issuer}:
        return
    (given,) = told
    slash = given.rstrip("/") == e.issuer.rstrip("/")
    yield found(e, "issuer-trailing-slash" if slash else "token-issuer", f"iss {given}", variant="token")


def tokens(e: Evidence) -> Iterator[Finding]:
    """A fresh token verifies with only the issuer, as a stock library does it."""
    refused = [reply for reply in e.replies("mint") if reply.status != 200]
    if refused and refused[0].code != "JWT_NOT_CONFIGURED":
        yield found(e, "token-invalid", f"minting: {refused[0].status} {refused[0].code}")
        return
    due = [*e.minted[:1], *([e.id_token] if e.id_token is not None else [])]
    for token in due:
        if (fault := _fault(e, token)) is not None:
            yield found(e, "token-invalid", fault)
            return


def _fault(e: Evidence, token: UnverifiedToken) -> str | None:
    """Why a token does not verify; None if it does, or if that cannot be checked from outside."""
    alg = str(token.header.get("alg"))
    algs = e.document.get("id_token_signing_alg_values_supported")
    if not isinstance(algs, list) or alg not in algs:
        return f"alg {alg} is not advertised" if alg != "HS256" else None
    if alg == "HS256":
        return None
    key = next((key for key in e.keys if key.get("kid") == token.header.get("kid")), None)
    if key is None:
        return None  # reported by `keys`
    if not verifies_by_jwk(token.text, key, alg=alg):
        return "the signature is not that of the published key"
    jwks, exp = e.reply("jwks"), token.claims.get("exp")
    now = 0.0 if jwks is None else jwks.received_at
    return "it has expired already" if not isinstance(exp, int) or exp < now - CLOCK_S else None


def flow(e: Evidence) -> Iterator[Finding]:
    """A whole sign-in completes, or gets as far as the consent page."""
    for step, seen in e.flow.items():
        if step == "stopped":
            yield found(e, "stopped-at-consent", seen)
        elif step in STEPS:
            yield found(e, "flow-broken", f"{STEPS[step]}: {seen}")
    error = e.error("flow")
    if error is not None:
        yield found(e, "flow-broken", f"no answer: {error.detail}")
