"""Decides as the service would, for the commands about policies: one token, or the cases of a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import click
from msgspec.structs import replace

from service.cli.common import fail_configuration
from service.clients import Clients
from service.issuer import FALLBACK_ISSUER
from service.policies.cases import Case
from service.policies.deciding import Asked, Given, Refused, decide
from service.policies.values import (
    AUTHORIZATION_CODE,
    CLIENT_WAYS,
    EXCHANGE_GRANT,
    MINT,
    TOKEN_EXCHANGE,
    Policies,
    Policy,
)
from service.records.clients import SECRET_METHODS, Client, ClientSecret
from service.records.sessions import Session, new_session
from service.resources.sign_in_request import SignInRequest
from service.settings import Fault, Settings
from service.settings.policies import SETTING
from service.startup import open_store
from service.storage.interface import StoreUnavailable
from service.web.bodies import parse_model
from service.web.errors import ApiError


def decided_for(settings: Settings, audience: str, asked: Asked) -> Given | Refused:
    """What a service with these settings decides. Its issuer is that of `asked`, unless it depends on `Host`."""
    policies = settings.audiences
    found = policies.to_mint(audience) if asked.way == MINT else policies.of_resource(audience)
    if found is None:
        known = audience in policies.tables or policies.of_resource(audience) is not None
        return Refused("grants" if known else "audience")
    asked = replace(asked, issuer=issuer_of(settings, asked.way))
    if asked.way == AUTHORIZATION_CODE:
        asked = _at_a_fresh_grant(found, asked)
    return decide(found, asked)


def _at_a_fresh_grant(policy: Policy, asked: Asked) -> Asked:
    """What the first token of a code is decided by: words of other APIs are left out, and a grant ends later than its session."""
    words, session, client = asked.scope, asked.session, asked.client
    granted: tuple[str, ...] = ()
    if words is not None and client is not None:
        granted = tuple(word for word in client.scopes.words if word in words and word in client.scope)
        words = tuple(word for word in words if word in policy.scopes and word in client.scope)
    if session is not None:
        session = dataclasses.replace(session, expires_at=asked.now + policy.lifetime_s)
    return replace(asked, scope=words, session=session, granted=granted)


def issuer_of(settings: Settings, way: str) -> str:
    """The `iss`; if it comes from `Host`, the one for a request without `Host`."""
    own = settings.issuer or FALLBACK_ISSUER
    return settings.jwt_issuer or own if way == MINT else own


def session_of(body: bytes, settings: Settings, *, now: int) -> Session:
    """The session that the body of a session request would start.

    Raises:
        click.UsageError: if the body is wrong.
    """
    try:
        request = parse_model(SignInRequest, body)
        sign_in = request.sign_in(now=now, max_lifetime_s=settings.session_lifetime_s)
    except ApiError as error:
        at = f" at {error.field}" if error.field else ""
        raise click.UsageError(f"The body of a session request is wrong{at}.") from None
    return new_session(sign_in, lifetime_s=settings.session_lifetime_s, now=now)


def result(
    settings: Settings, policies: Policies, clients: Clients | None, case: Case, number: int, *, now: int
) -> dict[str, Any]:
    """The result of one case: its place, its request, and how the decision differs from the expected one."""
    session: Session | None = None
    if case.user is not None:
        try:
            session = session_of(json.dumps(case.user).encode(), settings, now=now)
        except (click.ClickException, TypeError) as error:
            why = error.message if isinstance(error, click.ClickException) else "it is not JSON"
            text = f"{policies.file}, line {case.line}: [[case]] {number}, user: is not the body of a session request ({why})"
            fail_configuration([Fault(SETTING, text, case.line)])
    client = (
        None if case.client is None else _client_of_case(settings, clients, case.client, case.grant, now=now)
    )
    asked = Asked(case.grant, "", now, session=session, client=client, scope=case.scope)
    decided = decided_for(settings, case.audience, asked)
    return {
        "line": case.line,
        "audience": case.audience,
        "grant": case.grant,
        "differs": difference(case, decided),
    }


def difference(case: Case, decided: Given | Refused) -> str | None:
    """How the decision differs from what the case expects; None if it does not."""
    if isinstance(decided, Refused):
        if case.refuse == decided.rule:
            return None
        return f"refused by {decided.rule}" + (
            f", not by {case.refuse}" if case.refuse else ", and not issued"
        )
    if case.refuse is not None:
        return f"issued, and not refused by {case.refuse}"
    for name, value in (case.expect or {}).items():
        if name not in decided.claims:
            return f"has no {name}"
        if not _same(decided.claims[name], value):
            return f"{name} is {json.dumps(decided.claims[name])}, not {json.dumps(value)}"
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: in JSON, true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@contextlib.contextmanager
def clients_of(settings: Settings) -> Iterator[Clients | None]:
    """The clients, or None if the database is unavailable."""
    store = open_store(settings)
    try:
        yield Clients.of(settings, store)
    finally:
        store.close()


def _client_of_case(
    settings: Settings, clients: Clients | None, client_id: str, way: str, *, now: int
) -> Client:
    """The client of that id. If it is not registered, or the database is unavailable, one with the values of the case."""
    if clients is not None:
        with contextlib.suppress(StoreUnavailable):
            if (known := clients.find(client_id, now=now)) is not None:
                return known
    return Client(
        client_id,
        (),
        "environment",
        secrets=(ClientSecret(""),),
        token_endpoint_auth_method=SECRET_METHODS[0],
        grant_types=(EXCHANGE_GRANT if way == TOKEN_EXCHANGE else way,) if way in CLIENT_WAYS else (),
        scope=settings.scopes.known,
        scopes=settings.scopes,
    )
