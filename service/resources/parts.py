"""The parts that resources share, built once. A resource only keeps them.

Owns: the list of parts, and how each is built from others.
Never touches: paths, requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from service.client_documents import ClientDocuments
from service.client_keys import ClientKeys
from service.clients import Clients
from service.deliveries import Deliveries
from service.delivering import Deliverer, deliverer_of
from service.events import Events
from service.keys.signing import Keys
from service.notices import Notices
from service.outbound.fetcher import Outbound
from service.outbound.slots import Slots
from service.policies.values import Policies
from service.protocol.assertions import Assertions
from service.records.assertions import UsedAssertions
from service.records.devices import Devices
from service.records.grants import Grants
from service.records.interactions import Interactions
from service.records.lifetimes import Lifetimes
from service.records.waiting import Waiting
from service.registrations import Registrations
from service.resources.browser import Browser
from service.resources.signed_in import SessionCookie, SignedIn
from service.sessions import LocalSessions
from service.settings.table import Settings
from service.status_lists import StatusLists
from service.storage.interface import Store
from service.subjects import Subjects
from service.web.auth import AdminAuth
from service.web.middleware import ClientAddress
from service.web.pages import Stylesheet

#: The sign-in page of dev mode.
DEV_SIGN_IN: Final = "/dev/sign-in"


@dataclass(frozen=True)
class Parts:
    """Everything that the resources share.

    Attributes:
        settings: the parsed settings; values that are computed from them are stored here, to compute them once.
        store: the store of all state.
        keys: sign and verify.
        sessions: the sessions of signed-in users.
        clients: the registered clients.
        events: where events are sent.
        lifetimes: the lifetimes of codes, tokens and interactions.
        login_url: the app's sign-in page, or the path of our own; None: nobody can sign in.
        grants: what users let clients do.
        waiting: limits the requests that wait for a browser.
        devices: devices that wait for their users.
        interactions: sign-ins that wait.
        notices: tells the operator about clients.
        admin: checks the admin token.
        signed_in: finds the session of a request.
        browser: sessions, cookies and pages of a browser.
        stylesheet: the stylesheet of the pages.
        policies: the policy of each audience.
        statuses: the places of sessions and grants in status lists.
        deliveries: the queue of logout tokens.
        deliverer: sends them.
        client_keys: the keys of clients, also from their own URLs.
        documents: clients that are known by their documents.
        assertions: authenticates clients that have keys.
        registrations: registers clients that the operator does not know.
    """

    settings: Settings
    store: Store
    keys: Keys
    sessions: LocalSessions
    clients: Clients
    events: Events
    lifetimes: Lifetimes
    login_url: str | None
    grants: Grants
    waiting: Waiting
    devices: Devices
    interactions: Interactions
    notices: Notices
    admin: AdminAuth
    signed_in: SignedIn
    browser: Browser
    stylesheet: Stylesheet
    policies: Policies
    statuses: StatusLists
    deliveries: Deliveries
    deliverer: Deliverer
    client_keys: ClientKeys
    documents: ClientDocuments
    assertions: Assertions
    registrations: Registrations


def parts_of(
    settings: Settings, store: Store, keys: Keys, clock: Callable[[], float], events: Events
) -> Parts:
    """Build every part from these five."""
    subjects = Subjects.of(settings, store)
    clients = Clients.of(settings, store, events=events, subjects=subjects)
    statuses = StatusLists(store, enabled=settings.status_list)
    deliverer = deliverer_of(settings, store, keys, clock, clients=clients)
    sessions = LocalSessions(
        store,
        lifetime_s=settings.session_lifetime_s,
        events=events,
        subjects=subjects,
        deliveries=deliverer.deliveries,
        statuses=statuses,
    )
    signed_in, waiting, stylesheet = _signed_in(settings, sessions), Waiting(store), Stylesheet()
    client_keys, documents = _asking_others(settings, store, clients, subjects, events)
    return Parts(
        settings=settings,
        store=store,
        keys=keys,
        sessions=sessions,
        clients=clients,
        events=events,
        lifetimes=settings.lifetimes,
        login_url=settings.login_url or (DEV_SIGN_IN if settings.dev_mode else None),
        grants=Grants(store, events),
        waiting=waiting,
        devices=Devices(waiting),
        interactions=Interactions(waiting, settings.lifetimes),
        notices=Notices(store, structlog.get_logger("clients")),
        admin=AdminAuth(settings.admin_tokens),
        signed_in=signed_in,
        browser=_browser(settings, store, signed_in, sessions, stylesheet),
        stylesheet=stylesheet,
        policies=settings.audiences,
        statuses=statuses,
        deliveries=deliverer.deliveries,
        deliverer=deliverer,
        client_keys=client_keys,
        registrations=Registrations.of(settings, store, clients, events),
        documents=documents,
        assertions=Assertions(client_keys, UsedAssertions(store)),
    )


def _asking_others(
    settings: Settings, store: Store, clients: Clients, subjects: Subjects, events: Events
) -> tuple[ClientKeys, ClientDocuments]:
    """What sends requests while a request waits: both have the same slots."""
    outbound, slots, most_s = Outbound.of(settings), Slots(), settings.lifetimes.interaction_s
    documents = ClientDocuments(store, clients, outbound, slots, subjects, events, most_s)
    return ClientKeys(store, outbound, slots), documents


def _signed_in(settings: Settings, sessions: LocalSessions) -> SignedIn:
    cookie = SessionCookie(settings.cookie_name, settings.cookie_domain, settings.cookie_same_site)
    return SignedIn(sessions, cookie, settings.trusted_origins)


def _browser(
    settings: Settings, store: Store, signed_in: SignedIn, sessions: LocalSessions, stylesheet: Stylesheet
) -> Browser:
    return Browser(
        store=store,
        sessions=sessions,
        signed_in=signed_in,
        addresses=ClientAddress(settings.forwarded_allow_ips),
        stylesheet_version=stylesheet.version,
        brand_name=settings.brand_name,
    )


class Resource:
    """Answers at a path."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts


class Page(Resource):
    """Answers browsers, and shows them failures as a page."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.show_failure = parts.browser.show_failure
