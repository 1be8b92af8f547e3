"""Events as typed frozen values, and their listeners.

An event is sent only after its change is stored. If a listener fails, that is counted and logged, and has no other
effect. So anything that must be as durable as the change must be a record in the same transaction, not a listener.

Owns: the list of events and listeners.
Never touches: the store, requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal

import structlog

from service.logs import REQUEST_ID, describe_error

_log = structlog.get_logger("events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that has happened.

    Attributes:
        name: the name in the log.
        level: the level in the log.
        client_id, subject, sid: the client, user and session that it is about, or None.
        request_id: the id of the request; None outside of one.
    """

    name: ClassVar[str]
    level: ClassVar[Literal["info", "warning"]] = "info"

    client_id: str | None = None
    subject: str | None = None
    sid: str | None = None
    request_id: str | None = field(default_factory=REQUEST_ID.get)


# --- sessions and users ---


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn(Event):
    """A session has started."""

    name = "signed_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """Sessions were ended, with everything that depends on them: the one of `sid`, or all except that of `kept_sid`."""

    name = "session_ended"

    kept_sid: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLockedOut(Event):
    """All sessions and grants of a user were ended. `count` is the number of sessions."""

    name = "user_locked_out"

    count: int


# --- what users let clients do ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentGiven(Event):
    """A user has agreed to a scope. If `remembered`, the client gets it again without asking."""

    name = "consent_given"

    scope: tuple[str, ...]
    remembered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEnded(Event):
    """A grant and its tokens were ended."""

    name = "grant_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExchanged(Event):
    """A client got a token for an audience, in exchange for a token of the user (RFC 8693)."""

    name = "token_exchanged"

    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeReused(Event):
    """A code was used twice, so it may be stolen, and its grant was ended (RFC 6749 §4.1.2)."""

    name = "code_reused"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenReused(Event):
    """A refresh token was used twice, so it may be stolen, and its grant was ended (RFC 9700 §4.14.2)."""

    name = "refresh_token_reused"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCodesLocked(Event):
    """There were too many wrong user codes of one user, or from one address: no code is looked up for a while (RFC 8628 §5.1)."""

    name = "device_codes_locked"
    level = "warning"

    by: Literal["user", "address"]


# --- what operators do, and clients that register themselves ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientChanged(Event):
    """A client's registration has changed. `by`: the operator has changed it, or the client itself; or nobody used it."""

    name = "client_changed"

    what: Literal["registered", "metadata", "secret", "removed"]
    by: Literal["operator", "client", "sweep"] = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged(Event):
    """A signing key has a new role in this process. `was` is the earlier role; None for a new key."""

    name = "key_changed"

    kid: str
    alg: str
    role: str
    was: str | None
    revoked: bool


# --- listeners ---

_OF_ALL: Final = frozenset(each.name for each in fields(Event))

Listener = Callable[[Event], None]


def into_log(event: Event) -> None:
    """Log the event's name and its values."""
    known: dict[str, Any] = {}
    for each in fields(event):
        value = getattr(event, each.name)
        if value is not None or each.name not in _OF_ALL:
            known["user" if each.name == "subject" else each.name] = value
    getattr(_log, event.level)(event.name, **known)


#: All listeners. To add one, write a function above and name it here.
LISTENERS: Final[tuple[Listener, ...]] = (into_log,)


class Events:
    """Sends events to listeners.

    Args:
        listeners: called in this order; may be empty.
    """

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._failures = itertools.count(1)
        #: How often a listener has failed.
        self.failed = 0

    def send(self, event: Event) -> None:
        """Call every listener. A listener cannot change the outcome."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # a listener cannot change the outcome
                self.failed = next(self._failures)
                _log.error("listener_failed", told=event.name, failed=self.failed, **describe_error(error))


#: For what the service does.
HEARD: Final = Events(LISTENERS)
#: For commands, which print what they did themselves, and for read-only use.
UNHEARD: Final = Events()
