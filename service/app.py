"""Puts the application together: the only place that knows all concrete parts and joins the routes of all resources."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import falcon
import structlog

from service.events import HEARD, ClientChanged, Events
from service.issuer import IssuerResolver, issuer_path
from service.keys.ring import Margins
from service.keys.signing import Keys
from service.logs import configure_logging
from service.resources import (
    authorize,
    clients,
    deliveries,
    dev,
    device,
    discovery,
    health,
    interactions,
    logout,
    mint,
    registration,
    sessions,
    status,
    token,
    users,
)
from service.resources.parts import Parts, parts_of
from service.settings import Settings
from service.startup import client_warnings, prepare
from service.storage.interface import Store
from service.web import pages
from service.web.errors import add_error_handlers
from service.web.middleware import (
    AsTheResourceSays,
    CredentialedCors,
    ErrorsOfEndpoints,
    IssuerOfRequest,
    OpenCors,
    RequestLog,
)
from service.web.mounts import Mount, joined, paths_with
from service.web.routing import ExactRouter


class Application(falcon.App[falcon.Request, falcon.Response]):
    """The application."""

    #: Starts background work. Called once in each process that serves, after its fork.
    begin_work: Callable[[], None]
    #: Whether requests that may write take turns in a process: SQLite has one writer. PostgreSQL has many, which commit
    #: together.
    writes_in_turn: bool


#: Each declares its resources and their paths.
MODULES: Final = (
    authorize,
    clients,
    deliveries,
    dev,
    device,
    discovery,
    health,
    interactions,
    logout,
    mint,
    registration,
    sessions,
    status,
    token,
    users,
)


def create_app(
    settings: Settings,
    store: Store,
    keyring: Keys,
    clock: Callable[[], float] = time.time,
    events: Events = HEARD,
) -> Application:
    """Put the application together.

    Args:
        settings: the settings.
        store: the store of all state.
        keyring: the keys; with a managed ring, also the margins of rotation.
        clock: Unix s.
        events: where events are sent.
    """
    parts = parts_of(settings, store, keyring, clock, events)
    if parts.login_url is not None:
        pages.prepare()
    table = routes(parts)
    app = Application(
        middleware=[
            RequestLog(settings.forwarded_allow_ips, clock),
            ErrorsOfEndpoints(paths_with("send_error", table)),
            OpenCors(paths_with("any_origin", table)),
            IssuerOfRequest(
                IssuerResolver(settings.issuer, settings.allowed_hosts, settings.dev_mode),
                indifferent=frozenset(paths_with("any_host", table)),
            ),
            CredentialedCors(
                settings.trusted_origins, prefix=f"{issuer_path(settings.issuer or '')}/api/auth/"
            ),
            AsTheResourceSays(parts.admin),
        ],
        router=ExactRouter(named_by_others=[path for path, mount in table.items() if mount.named_by_others]),
    )
    add_error_handlers(app)
    for path, mount in table.items():
        app.add_route(path, mount.resource)
    app.begin_work = parts.deliverer.begin if settings.deliveries == "workers" else _nothing
    app.writes_in_turn = settings.database.is_sqlite
    return app


def _nothing() -> None:
    """All is done by another process."""


def routes(parts: Parts) -> Mapping[str, Mount]:
    """The resource of each path, from the modules of `resources/`."""
    mounts = itertools.chain.from_iterable(module.routes(parts) for module in MODULES)
    return joined(mounts, prefix=issuer_path(parts.settings.issuer or ""))


def tell_of_unused(events: Events, client_ids: Iterable[str]) -> None:
    """Report the clients that were removed because nobody had used them."""
    for client_id in client_ids:
        events.send(ClientChanged(client_id=client_id, what="removed", by="sweep"))


def get_app(clock: Callable[[], float] = time.time, margins: Margins | None = None) -> Application:
    """The application of this process's environment, for a WSGI server.

    Args:
        clock: Unix s.
        margins: of the rotation of managed keys; by default those of the settings. For tests, which cannot wait for days.

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
    prepared.store.sweeper.clients_ended = partial(tell_of_unused, HEARD)
    prepared.store.close()  # no connection is shared across a fork
    return create_app(settings, prepared.store, prepared.keyring, clock)
