"""Sends requests to the public address or to the inside one, several at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from service.doctor.evidence import Answer, Options
from service.doctor.reply import Reply, WireError
from service.doctor.wire import Wire

FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")
JSON: Final = ("Content-Type", "application/json")
_AT_ONCE: Final = 8
#: If answers take long, there is more time, and more requests are sent at a time.
_SLOW_S: Final = 1.0
_MORE_S: Final = 45.0
_MORE_AT_ONCE: Final = 16

Question = Callable[[], Reply]


class Asker:
    """Sends requests, and keeps the answers.

    Args:
        options: the operator's options.
        wire: how connections are made.
        progress: gets the name of each request that was answered.
        is_patient: whether there is more time if answers are slow.

    Attributes:
        answers: the answers, by the name of the request.
    """

    def __init__(
        self,
        options: Options,
        wire: Wire,
        progress: Callable[[str], None] = lambda _: None,
        *,
        is_patient: bool = False,
    ) -> None:
        self.options, self.answers = options, dict[str, Answer]()
        self.origin, self.path = options.origin, options.path
        self._wire, self._progress, self._is_patient = wire, progress, is_patient
        self._at_once = _AT_ONCE

    @property
    def wire(self) -> Wire:
        """How connections are made."""
        return self._wire

    def together(self, questions: Mapping[str, Question]) -> None:
        """Send several requests at a time, and keep the answers."""

        def answer(name: str) -> Answer:
            try:
                return questions[name]()
            except WireError as error:
                return error
            except TimeoutError:
                return WireError("timeout", "the time for all requests was over")

        with ThreadPoolExecutor(self._at_once) as pool:
            for name, found in zip(questions, pool.map(answer, questions), strict=True):
                self.answers[name] = found
                self._progress(name)

    def take_time(self, reply: Reply | None) -> None:
        """Allow more time after an answer that took long."""
        if self._is_patient and reply is not None and reply.took_s > _SLOW_S:
            more = max(self._wire.deadline, time.monotonic() + _MORE_S)
            self._wire, self._at_once = replace(self._wire, deadline=more), _MORE_AT_ONCE

    def get(self, target: str, *headers: tuple[str, str], method: str = "GET", **more: Any) -> Question:
        """A request without a body."""
        return lambda: self._wire.ask(self.origin, method, target, headers, **more)

    def post(self, target: str, body: bytes, *headers: tuple[str, str]) -> Question:
        """A request with a body; a form, unless the headers say otherwise."""
        return lambda: self._wire.ask(self.origin, "POST", target, headers or (FORM,), body)

    # --- the application itself, without the proxy, under the public name ---

    def inside(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), data: bytes = b""
    ) -> Reply:
        """Send a request to the application itself; it has one more second if the time is over.

        Raises:
            WireError: if there was no answer, or there is no inside address.
        """
        where = self.options.inside
        if where is None:
            raise WireError("dns", "no inside address was given")
        origin, place = where
        wire = replace(self._wire, source=None, deadline=max(self._wire.deadline, time.monotonic() + 1))
        return wire.ask(origin, method, target, headers, data, host=self.origin.host, place=place)

    def as_admin(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Send it as the app's backend does.

        Args:
            method: of the request.
            target: path and query below the issuer's path.
            body: sent as JSON.

        Raises:
            WireError: if there was no answer, or there is no inside address.
        """
        headers = [("Authorization", f"Bearer {self.options.admin_token}")]
        data = b"" if body is None else json.dumps(body).encode()
        return self.inside(method, self.path + target, [*headers, *([JSON] if data else [])], data)
