"""What has happened, as typed frozen values, and who hears of it.

An event is sent once its change is stored, and never for one that was not. A listener that fails is counted and logged,
and changes nothing. So what must be as durable as the change is no listener: it is a record in the same transaction.

Owns: which events there are, who listens.
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
        name: of the event, as the log has it.
        level: of its line there.
        client_id, subject, sid: whose client, which user and which session it is about; None where it is about none.
        request_id: in which request; None outside of one.
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
    """A session has begun."""

    name = "signed_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """Sessions have ended before their time, and what hangs on them: the one of `sid`, or all but that of `kept_sid`."""

    name = "session_ended"

    kept_sid: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLockedOut(Event):
    """All sessions and all grants of a user have ended; `count`: how many sessions."""

    name = "user_locked_out"

    count: int


# --- what users let clients do ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentGiven(Event):
    """A user has agreed to a scope; `remembered`: the client may have it again without asking."""

    name = "consent_given"

    scope: tuple[str, ...]
    remembered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEnded(Event):
    """A grant has ended before its time, and its tokens."""

    name = "grant_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeReused(Event):
    """A code came again that was used before: it was stolen, and its grant has ended (RFC 6749 §4.1.2)."""

    name = "code_reused"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenReused(Event):
    """A refresh token came again that was used before: it was stolen, and its grant has ended (RFC 9700 §4.14.2)."""

    name = "refresh_token_reused"
    level = "warning"


# --- what operators do ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientChanged(Event):
    """What is registered of a client is another now."""

    name = "client_changed"

    what: Literal["registered", "metadata", "secret", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged(Event):
    """A signing key has another role in this process; `was`: the one before, None where it is new."""

    name = "key_changed"

    kid: str
    alg: str
    role: str
    was: str | None
    revoked: bool


# --- who hears of it ---

_OF_ALL: Final = frozenset(each.name for each in fields(Event))

Listener = Callable[[Event], None]


def into_log(event: Event) -> None:
    """A line of the event's name, with what is known."""
    known: dict[str, Any] = {}
    for each in fields(event):
        value = getattr(event, each.name)
        if value is not None or each.name not in _OF_ALL:
            known["user" if each.name == "subject" else each.name] = value
    getattr(_log, event.level)(event.name, **known)


#: All that hear of what happens: a function above, and its name here.
LISTENERS: Final[tuple[Listener, ...]] = (into_log,)


class Events:
    """Sends events to listeners.

    Args:
        listeners: in their order; none: nobody hears.
    """

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._failures = itertools.count(1)
        #: How often a listener has failed.
        self.failed = 0

    def send(self, event: Event) -> None:
        """Tell every listener. None of them decides anything."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # a listener decides nothing
                self.failed = next(self._failures)
                _log.error("listener_failed", told=event.name, failed=self.failed, **describe_error(error))


#: For what the service does.
HEARD: Final = Events(LISTENERS)
#: For commands, which print what they did themselves, and for looking around.
UNHEARD: Final = Events()
