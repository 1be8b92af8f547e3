"""Devices that wait for their users: one row for each, which the device code and the user code both find.

The id of the row is a hash of the user code, and the device code contains it, next to its own secret.

Spec: RFC 8628 §3.2, §3.5
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeVar

from service import handles
from service.handles import device_id, new_handle, new_user_code
from service.records.waiting import Waiting, as_kept, from_kept
from service.storage.interface import Change, Contended, Kind, Record

#: How long both codes are valid, and how long a device waits between two requests at first, in s.
LIFETIME_S: Final = 600
INTERVAL_S: Final = 5
#: How long after that a device is answered that its code has expired, in s. Then its code is unknown.
_REMEMBERED_S: Final = 3_600
#: How often a user code is drawn: a second time only if another device shows the same one.
_DRAWS: Final = 8
_NO_LETTERS: Final = re.compile(r"[\W_]+")

_Result = TypeVar("_Result")


class Decision(StrEnum):
    """What the user has decided."""

    NONE = "none"
    ALLOWED = "allowed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that waits for its user.

    Attributes:
        id: the id of its row.
        issuer: the issuer that it asked.
        parameters: its request: `client_id`, and `scope` and `resource` if given.
        secret_hash: hash of the secret in its device code.
        ends_at: when both codes expire, Unix s.
        interval_s: how long it has to wait between two requests.
        asked_at: when it last asked, Unix s; None before the first time.
        decision: what the user has decided.
        grant_id: the grant that it may use, if allowed.
        row: the row as it was read.
    """

    id: str
    issuer: str
    parameters: Mapping[str, str]
    secret_hash: str
    ends_at: int
    interval_s: int = INTERVAL_S
    asked_at: int | None = None
    decision: Decision = Decision.NONE
    grant_id: str = ""
    row: Record | None = field(default=None, repr=False, compare=False)

    @property
    def client_id(self) -> str:
        """Its client."""
        return self.parameters["client_id"]

    def waits(self, now: int) -> bool:
        """Whether a user may still decide. `now` is Unix s."""
        return self.decision is Decision.NONE and now < self.ends_at

    def to_record(self, address: str = "") -> Record:
        """Its row. `address` is where its first request came from, for a new one."""
        body = {
            "issuer": self.issuer,
            "request": as_kept(self.parameters),
            "secret_hash": self.secret_hash,
            "ends_at": self.ends_at,
            "interval_s": self.interval_s,
            "asked_at": self.asked_at,
            "decision": self.decision,
            "grant_id": self.grant_id,
        }
        if self.row is not None:
            return replace(self.row, body={**self.row.body, **body})
        expires_at = self.ends_at + _REMEMBERED_S
        return Record(Kind.DEVICE, self.id, expires_at, address, client_id=self.client_id, body=body)


def _of_record(record: Record) -> Device:
    body = record.body
    return Device(
        id=record.id_hash,
        issuer=body["issuer"],
        parameters=from_kept(body["request"]),
        secret_hash=body["secret_hash"],
        ends_at=body["ends_at"],
        interval_s=body["interval_s"],
        asked_at=body["asked_at"],
        decision=Decision(body["decision"]),
        grant_id=body["grant_id"],
        row=record,
    )


def letters_of(unverified_code: str) -> str:
    """The letters of a user code as a user types it: case, spaces, hyphens and other punctuation do not count (§6.1)."""
    return _NO_LETTERS.sub("", unverified_code).upper()


def shown(user_code: str) -> str:
    """A user code as people read it: `XXXX-XXXX`."""
    return f"{user_code[:4]}-{user_code[4:]}"


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a new device, which are not available later."""

    device_code: str
    user_code: str


class Devices:
    """Stores devices.

    Args:
        waiting: limits how many wait, because anyone can start one with the id of a public client.
    """

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._store = waiting.store

    def begin(self, parameters: Mapping[str, str], *, issuer: str, address: str, now: int) -> Codes:
        """Store a device.

        Args:
            parameters: what it asks for. The request has passed every check.
            issuer: the issuer of the request.
            address: the address that it asks from; empty if not known.
            now: Unix s.

        Raises:
            Contended: if every user code that was drawn is already in use.
        """
        for _ in range(_DRAWS):
            user_code, secret = new_user_code(), new_handle()
            device = Device(
                id=device_id(user_code),
                issuer=issuer,
                parameters=parameters,
                secret_hash=handles.short_hash(secret),
                ends_at=now + LIFETIME_S,
            )
            if self._waiting.keep(device.to_record(address), now=now):
                return Codes(handles.with_secret("device code", device.id, secret), user_code)
        raise Contended("every user code is in use")

    def of_user_code(self, unverified_code: str, *, issuer: str, now: int) -> Device | None:
        """The device that shows this code under this issuer and waits for its user."""
        record = self._store.get(Kind.DEVICE, device_id(letters_of(unverified_code)), now=now)
        device = None if record is None else _of_record(record)
        return device if device is not None and device.issuer == issuer and device.waits(now) else None

    def use(
        self,
        unverified_id: str,
        decide: Callable[[Device | None], tuple[Device | None, _Result]],
        *,
        now: int,
    ) -> _Result:
        """Change a device without losing changes by others.

        Args:
            unverified_id: its id.
            decide: returns the changed device, or None to leave it, and the result. It is called again if another
                request was faster. If it raises, nothing is changed.
            now: Unix s.

        Raises:
            Contended: if other requests were faster at every attempt.
        """
        results: list[_Result] = []

        def decided(record: Record) -> Record | None:
            changed, result = decide(_of_record(record))
            results.append(result)
            return None if changed is None else changed.to_record()

        self._store.change(Kind.DEVICE, unverified_id, decided, now=now)
        return results[-1] if results else decide(None)[1]


def decided(waiting_id: str, decision: Decision, *, grant_id: str = "", now: int) -> Change:
    """The user's decision, to be stored together with the rest of it. It fails if the device no longer waits."""

    def with_decision(record: Record) -> Record | None:
        known = _of_record(record)
        if not known.waits(now):
            return None
        return replace(known, decision=decision, grant_id=grant_id).to_record()

    return Change(Kind.DEVICE, waiting_id, with_decision)
