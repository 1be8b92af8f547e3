"""The parts that resources are made of, built once, and what a resource does with them: nothing but keep them.

Owns: which part there is, and how one is made of another.
Never touches: paths, requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from service.clients import Clients
from service.events import Events
from service.keys.signing import Keys
from service.notices import Notices
from service.policies.values import Policies
from service.records.grants import Grants
from service.records.interactions import Interactions
from service.records.lifetimes import Lifetimes
from service.records.waiting import Waiting
from service.resources.browser import Browser
from service.resources.signed_in import SessionCookie, SignedIn
from service.sessions import LocalSessions
from service.settings.table import Settings
from service.storage.interface import Store
from service.subjects import Subjects
from service.web.auth import AdminAuth
from service.web.middleware import ClientAddress
from service.web.pages import Stylesheet

#: Where dev mode signs people in.
DEV_SIGN_IN: Final = "/dev/sign-in"


@dataclass(frozen=True)
class Parts:
    """Everything that the resources share.

    Attributes:
        settings: parsed; what is computed of them on each look stands here, made once.
        store: where state lives.
        keys: sign and verify.
        sessions: who is signed in.
        clients: who is registered.
        clock: Unix s; read once a request, which has it as `req.context.now`.
        events: tell what has happened.
        lifetimes: of what is given out.
        login_url: the app's sign-in page, or the path of a page of ours; None: nobody can sign in.
        grants: what users let clients do.
        waiting: what waits for a browser, bounded.
        interactions: sign-ins that wait.
        notices: what an operator should know of a client.
        admin: knows the admin token.
        signed_in: finds the session of a request.
        browser: the browser in front of us.
        stylesheet: of its pages.
        policies: what a token for each audience holds.
    """

    settings: Settings
    store: Store
    keys: Keys
    sessions: LocalSessions
    clients: Clients
    clock: Callable[[], float]
    events: Events
    lifetimes: Lifetimes
    login_url: str | None
    grants: Grants
    waiting: Waiting
    interactions: Interactions
    notices: Notices
    admin: AdminAuth
    signed_in: SignedIn
    browser: Browser
    stylesheet: Stylesheet
    policies: Policies


def parts_of(
    settings: Settings, store: Store, keys: Keys, clock: Callable[[], float], events: Events
) -> Parts:
    """Make every part of those five."""
    subjects = Subjects.of(settings, store)
    sessions = LocalSessions(store, lifetime_s=settings.session_lifetime_s, events=events, subjects=subjects)
    cookie = SessionCookie(settings.cookie_name, settings.cookie_domain, settings.cookie_same_site)
    signed_in = SignedIn(sessions, cookie, settings.trusted_origins)
    waiting, stylesheet = Waiting(store), Stylesheet()
    return Parts(
        settings=settings,
        store=store,
        keys=keys,
        sessions=sessions,
        clients=Clients.of(settings, store, events=events, subjects=subjects),
        clock=clock,
        events=events,
        lifetimes=settings.lifetimes,
        login_url=settings.login_url or (DEV_SIGN_IN if settings.dev_mode else None),
        grants=Grants(store, events),
        waiting=waiting,
        interactions=Interactions(waiting, settings.lifetimes),
        notices=Notices(store, structlog.get_logger("clients")),
        admin=AdminAuth(None if settings.admin_token is None else settings.admin_token.value),
        signed_in=signed_in,
        browser=Browser(
            store=store,
            sessions=sessions,
            signed_in=signed_in,
            addresses=ClientAddress(settings.forwarded_allow_ips),
            stylesheet_version=stylesheet.version,
            brand_name=settings.brand_name,
        ),
        stylesheet=stylesheet,
        policies=settings.audiences,
    )


class Resource:
    """What answers at a path."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts


class Page(Resource):
    """What answers browsers: they are shown what went wrong."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.show_failure = parts.browser.show_failure
