"""The application: the only place that knows the concrete parts, and the only route table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import falcon
import structlog

from service.clients import Clients
from service.issuer import IssuerResolver, issuer_path
from service.keys.ring import Margins
from service.keys.signing import Keys
from service.logs import configure_logging
from service.notices import Notices
from service.protocol.grants.issuing import Issuing
from service.protocol.metadata import ENDPOINTS
from service.protocol.token_status import TokenStatus
from service.records.grants import Grants
from service.records.interactions import Interactions
from service.records.waiting import Waiting
from service.resources import clients, dev, health, interactions, sessions, token
from service.resources.authorize import Authorize, OpenInteraction
from service.resources.browser import STYLESHEET_PATH, Browser
from service.resources.discovery import Discovery, Jwks
from service.resources.logout import Logout
from service.resources.mint import Mint
from service.resources.sign_in import Flow
from service.resources.signed_in import SessionCookie, SignedIn
from service.resources.users import OneUser
from service.sessions import LocalSessions
from service.settings import Secret, Settings
from service.startup import client_warnings, prepare
from service.storage.interface import Store
from service.web.auth import AdminAuth
from service.web.errors import add_error_handlers
from service.web.middleware import (
    ClientAddress,
    CredentialedCors,
    ErrorsOfEndpoints,
    FailuresOfPages,
    IssuerOfRequest,
    KnownMethods,
    OpenCors,
    RequestLog,
)
from service.web.pages import Stylesheet
from service.web.routing import ExactRouter

Application = falcon.App[falcon.Request, falcon.Response]
DEV_SIGN_IN = "/dev/sign-in"
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
#: Routes whose identifier others choose: it may be sent encoded, and may hold slashes.
NAMED_BY_OTHERS = (
    "/api/auth/users/{user_id}/sessions",
    "/api/auth/users/{user_id}",
    "/api/oidc/clients/{client_id}/secret",
    "/api/oidc/clients/{client_id}",
)
WELL_KNOWN = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


def create_app(
    settings: Settings,
    store: Store,
    keyring: Keys,
    sessions_source: LocalSessions,
    clock: Callable[[], float] = time.time,
) -> Application:
    """Put the application together.

    Args:
        settings: the settings.
        store: where state lives.
        keyring: the keys; those of a managed ring come with the margins of their rotation.
        sessions_source: who is signed in.
        clock: Unix s.
    """
    prefix = issuer_path(settings.issuer or "")
    table = routes(settings, store, keyring, sessions_source, clock)
    app: Application = falcon.App(
        middleware=[
            RequestLog(settings.forwarded_allow_ips),
            ErrorsOfEndpoints(
                {
                    path: resource.send_error
                    for path, resource in table.items()
                    if hasattr(resource, "send_error")
                }
            ),
            OpenCors(frozenset(path for path, resource in table.items() if hasattr(resource, "any_origin"))),
            IssuerOfRequest(
                IssuerResolver(settings.issuer, settings.allowed_hosts, settings.dev_mode),
                indifferent=HEALTH_PATHS,
            ),
            CredentialedCors(settings.trusted_origins, prefix=f"{prefix}/api/auth/"),
            FailuresOfPages(),
            KnownMethods(),
        ],
        router=ExactRouter(named_by_others=[prefix + path for path in NAMED_BY_OTHERS]),
    )
    add_error_handlers(app)
    for path, resource in table.items():
        _derive_head(resource)
        app.add_route(path, resource)
    return app


def routes(
    settings: Settings,
    store: Store,
    keyring: Keys,
    sessions_source: LocalSessions,
    clock: Callable[[], float],
) -> Mapping[str, Any]:
    """The route table: path -> resource. The arguments are those of `create_app`."""
    cookie = SessionCookie(settings.cookie_name, settings.cookie_domain, settings.cookie_same_site)
    signed_in = SignedIn(sessions_source, cookie, settings.trusted_origins)
    admin = AdminAuth(_bytes(settings.admin_token))
    discovery = Discovery(keyring, issuer=settings.issuer, scopes=settings.scopes)
    mint = Mint(
        signed_in,
        keyring,
        clock,
        store.check_revocable,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime_s=settings.jwt_lifetime_s,
    )
    under_issuer = {
        WELL_KNOWN[0]: discovery,
        WELL_KNOWN[1]: discovery,
        ENDPOINTS["jwks_uri"]: Jwks(keyring),
        "/api/auth/jwt": mint,
        "/api/auth/me": sessions.Me(signed_in, clock),
        "/api/auth/refresh": sessions.Refresh(sessions_source, signed_in, clock),
        "/api/auth/session": sessions.OneSession(sessions_source, signed_in, admin, clock),
        "/api/auth/sessions": sessions.OwnSessions(sessions_source, signed_in, clock),
        "/api/auth/sessions/trusted-mint": sessions.TrustedMint(
            sessions_source, _bytes(settings.trusted_secret), clock
        ),
        "/api/auth/sessions/{sid}": sessions.OwnSession(sessions_source, signed_in, clock),
        "/api/auth/users/{user_id}/sessions": sessions.UserSessions(sessions_source, admin, clock),
    }
    under_issuer |= _provider(settings, store, keyring, sessions_source, signed_in, admin, clock)
    prefix = issuer_path(settings.issuer or "")
    table: dict[str, Any] = {prefix + path: resource for path, resource in under_issuer.items()}
    table |= {"/healthz": health.Alive(), "/readyz": health.Ready(store, keyring)}
    if prefix:  # RFC 8414 §3.1 inserts the well-known part before the issuer's path
        table |= {well_known + prefix: discovery for well_known in WELL_KNOWN}
    return table


def _provider(
    settings: Settings,
    store: Store,
    keyring: Keys,
    sessions_source: LocalSessions,
    signed_in: SignedIn,
    admin: AdminAuth,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """The routes of the authorization-code provider."""
    directory = Clients(
        settings.clients,
        store,
        minted_audience=settings.jwt_audience,
        mint_alg=settings.jwt_alg,
        scopes=settings.scopes,
        id_token_algs=settings.id_token_algs,
    )
    stylesheet = Stylesheet()
    addresses = ClientAddress(settings.forwarded_allow_ips)
    browser = Browser(store, sessions_source, signed_in, addresses, stylesheet.version, settings.brand_name)
    waiting = Waiting(store)
    interactions_kept = Interactions(waiting, settings.lifetimes)
    notices = Notices(store, structlog.get_logger("clients"))
    flow = Flow(
        browser,
        directory,
        interactions_kept,
        keyring,
        settings.lifetimes,
        clock,
        notices,
        login_url=settings.login_url or (DEV_SIGN_IN if settings.dev_mode else None),
        consent_url=settings.consent_url,
    )
    grants = Grants(store)

    issuing = Issuing(grants, sessions_source, keyring, settings.lifetimes, notices)
    status = TokenStatus(
        grants,
        sessions_source,
        keyring,
        lambda user_id, sid, now: sessions_source.of_sid(user_id, sid, now=now),
        settings.jwt_issuer,
        directory,
    )
    reports = (interactions_kept, directory, sessions_source, admin, clock)
    interaction = "/api/oidc/interactions/{interaction_id}"
    table: dict[str, Any] = {
        ENDPOINTS["authorization_endpoint"]: Authorize(flow),
        "/oidc/interaction/{interaction_id}": OpenInteraction(flow),
        ENDPOINTS["token_endpoint"]: token.Token(directory, issuing, clock),
        ENDPOINTS["userinfo_endpoint"]: token.Userinfo(status, clock),
        ENDPOINTS["introspection_endpoint"]: token.Introspect(directory, status, admin, clock),
        ENDPOINTS["revocation_endpoint"]: token.Revoke(directory, status, clock),
        ENDPOINTS["end_session_endpoint"]: Logout(
            browser, waiting, directory, keyring, clock, logout_url=settings.logout_url
        ),
        STYLESHEET_PATH: stylesheet,
        "/api/oidc/clients": clients.AllClients(directory, admin, clock),
        "/api/oidc/clients/{client_id}": clients.OneClient(directory, admin, clock),
        "/api/oidc/clients/{client_id}/secret": clients.ClientSecretRotation(directory, admin, clock),
        "/api/oidc/grants": clients.AllGrants(grants, admin, clock),
        "/api/oidc/grants/{grant_id}": clients.OneGrant(grants, admin, clock),
        interaction: interactions.OneInteraction(*reports),
        f"{interaction}/login": interactions.ReportLogin(*reports),
        f"{interaction}/consent": interactions.ReportConsent(*reports),
        f"{interaction}/reject": interactions.ReportRejection(*reports),
        "/api/auth/users/{user_id}": OneUser(sessions_source, admin, clock),
    }
    if settings.dev_mode:
        table |= {
            "/": dev.Home(browser, clock),
            "/dev/quickstart": dev.Quickstart(browser),
            DEV_SIGN_IN: dev.DevSignIn(browser, sessions_source, clock),
        }
    return table


def get_app(clock: Callable[[], float] = time.time, margins: Margins | None = None) -> Application:
    """The application of this process's environment, for a WSGI server.

    Args:
        clock: Unix s.
        margins: of the rotation of managed keys; by the settings when left out. For tests, which have no days.

    Raises:
        ConfigurationError: with every fault, before any port is open.
    """
    prepared = prepare(clock=clock, margins=margins)
    settings = prepared.settings
    configure_logging(settings.log_level, settings.log_format)
    log = structlog.get_logger("startup")
    of_clients = client_warnings(settings, prepared.store, now=int(clock()))
    for warning in [*prepared.warnings, *of_clients]:
        log.warning("configuration", detail=warning)
    for key in prepared.keyring.published:
        log.info("key_made" if prepared.key_made else "key_loaded", kid=key.kid, alg=key.alg)
    prepared.store.keep_room()
    prepared.store.close()  # no connection crosses a fork
    sessions_source = LocalSessions(prepared.store, lifetime_s=settings.session_lifetime_s)
    return create_app(settings, prepared.store, prepared.keyring, sessions_source, clock)


def _derive_head(resource: Any) -> None:
    if hasattr(resource, "on_get") and getattr(resource, "head_is_get", True):
        resource.on_head = resource.on_get


def _bytes(secret: Secret | None) -> bytes | None:
    return None if secret is None else secret.value
