"""Interactions: an authorization request that waits for its user, bound to the browser that started it.

The request stays on the server between the steps. To continue, the browser needs the interaction's cookie and, if the
app's backend has reported something, the verifier that the app sent through this browser.

A new state is stored only if the earlier one has not changed, together with everything that its effect needs.

Spec: OpenID Connect Core 1.0 §3.1.2.3; RFC 9700 §4.7 (the browser that starts is the browser that finishes)
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from service.handles import hash_handle, new_handle, new_id
from service.records.form_answers import Answered
from service.records.lifetimes import Lifetimes
from service.records.waiting import Waiting, as_kept, from_kept
from service.storage.interface import Change, Fitting, Kind, NotStanding, Record, Store


class Step(StrEnum):
    """What the user has to do next, if anything."""

    LOGIN = "login"
    CONSENT = "consent"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user agreed to. It never applies to another user.

    Attributes:
        user_id: the user.
        scope: the part of the shown scope that they agreed to.
    """

    user_id: str
    scope: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The state of a sign-in.

    Attributes:
        began_at: Unix s of the request.
        step: what the user has to do now.
        sign_in_attempts: how often the user was sent to sign in.
        sid_before: the session that the browser had at the start.
        signed_in_sid: the session that the app's backend reported for this interaction.
        consent: what a user agreed to; None before that.
        asked_sid, asked_user_id: the session whose user is asked for consent; no other user's answer counts.
        shown: the scope that this user was first shown; it never grows while they decide.
        form_token_hash: hash of the one-time token of the latest consent form.
    """

    began_at: int
    step: Step = Step.LOGIN
    sign_in_attempts: int = 0
    sid_before: str | None = None
    signed_in_sid: str | None = None
    consent: Consent | None = None
    asked_sid: str = ""
    asked_user_id: str = ""
    shown: tuple[str, ...] = ()
    form_token_hash: str = ""

    def agreed_by(self, user_id: str) -> tuple[str, ...] | None:
        """What this user agreed to; None if they did not."""
        return self.consent.scope if self.consent is not None and self.consent.user_id == user_id else None


@dataclass(frozen=True, slots=True)
class Interaction:
    """One waiting request.

    Attributes:
        id: its id for the app; not secret.
        issuer: the issuer of the request.
        parameters: the stored parameters of the request.
        browser_hash: hash of the cookie of the browser that started it.
        state: its state.
        row: the row as it was read, including members that this version does not know.
        hint_subject: the user that an `id_token_hint` named.
    """

    id: str
    issuer: str
    parameters: Mapping[str, str]
    browser_hash: str
    state: State
    row: Record = field(repr=False)
    hint_subject: str | None = None

    @property
    def expires_at(self) -> int:
        """Unix s."""
        return self.row.expires_at

    def is_browser(self, unverified_cookie: str | None) -> bool:
        """Whether the cookie belongs to the browser that started it."""
        return unverified_cookie is not None and hmac.compare_digest(
            hash_handle(unverified_cookie), self.browser_hash
        )


@dataclass(frozen=True, slots=True)
class Report:
    """A report of the app's backend. The browser with the verifier uses it once.

    Attributes:
        sid: the `sid` of the session that it started; None for a consent.
        user_id: the user who signed in, or was asked.
        scope: the part of the shown scope that they agreed to; None for a sign-in.
        remember: whether to remember the consent.
        error: an error for the client instead.
    """

    sid: str | None = None
    user_id: str | None = None
    scope: tuple[str, ...] | None = None
    remember: bool = True
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is stored together with a state: new records, changes, and records that must exist."""

    records: tuple[Record, ...] = ()
    changes: tuple[Change, ...] = ()
    standing_on: tuple[Fitting, ...] = ()

    def __add__(self, other: Beside) -> Beside:
        """Combine both. A record that both require is checked once."""
        return Beside(
            self.records + other.records,
            self.changes + other.changes,
            tuple(dict.fromkeys(self.standing_on + other.standing_on)),
        )

    def put(self, store: Store, *, now: int) -> bool:
        """Store it without a state. Returns False if a required record is gone."""
        try:
            return store.put(*self.records, changes=self.changes, standing_on=self.standing_on, now=now)
        except NotStanding:
            return False


NOTHING: Final = Beside()


class Interactions:
    """Stores interactions.

    Args:
        waiting: the limited store of waiting requests.
        lifetimes: their lifetime.
    """

    def __init__(self, waiting: Waiting, lifetimes: Lifetimes) -> None:
        self._waiting = waiting
        self._store = waiting.store
        self._lifetimes = lifetimes

    def begin(
        self,
        parameters: Mapping[str, str],
        state: State,
        *,
        hint_subject: str | None,
        issuer: str,
        address: str,
        now: int,
    ) -> tuple[Interaction, str]:
        """Store a request.

        Args:
            parameters: the parameters to store. The request has passed every check, including that of its size.
            state: its first state.
            hint_subject: the user that an `id_token_hint` named.
            issuer: the issuer of the request.
            address: the address of the browser; empty if not known.
            now: Unix s.

        Returns:
            The interaction, and the value of its cookie, which is not available later.
        """
        cookie, name = new_handle(), new_id()
        body = {
            "id": name,
            "issuer": issuer,
            "request": as_kept(parameters),
            "hint_subject": hint_subject,
            "browser_hash": hash_handle(cookie),
            "state": asdict(state),
        }
        expires_at = now + self._lifetimes.interaction_s
        record = Record(Kind.INTERACTION, _id_hash(name), expires_at, address, body=body)
        self._waiting.keep(record, now=now)
        return _of_record(record), cookie

    def find(self, interaction_id: str, *, issuer: str | None, now: int) -> Interaction | None:
        """The live interaction of that id and issuer; any issuer if None."""
        record = self._store.get(Kind.INTERACTION, _id_hash(interaction_id), now=now)
        if record is None or issuer not in (None, record.body["issuer"]):
            return None
        # An interaction of version 0.1 is no longer valid.
        return _of_record(record) if "state" in record.body else None

    def keep(
        self,
        interaction: Interaction,
        state: State,
        beside: Beside = NOTHING,
        *,
        unverified_verifier: str | None = None,
        answered: Answered | None = None,
        now: int,
    ) -> bool:
        """Store the next state, with everything that it needs, in one transaction.

        Args:
            interaction: the interaction as it was read.
            state: its next state. If that is the end, the interaction is removed.
            beside: what is stored together with it.
            unverified_verifier: the verifier of the report that was used; it is used up.
            answered: the answer to a form: stored for a minute, encrypted with the form's token, so that the same form
                gets it again.
            now: Unix s.

        Returns:
            False if another request was faster, or a required record is gone. Nothing was stored then.
        """
        spent = None if unverified_verifier is None else hash_handle(unverified_verifier)
        records = beside.records
        if answered is not None:
            records = (*records, answered.to_record(interaction.row.subject, now=now))
        try:
            if state.step is Step.OVER:
                return self._end(interaction, spent, replace(beside, records=records), now=now)
            wanted = _changed(interaction, state)
            if spent is None and beside == NOTHING:
                return state == interaction.state or self._store.swap(wanted, now=now)
            changes, standing_on = (_where_it_is(wanted), *beside.changes), beside.standing_on
            if spent is None:
                return self._store.put(*records, changes=changes, standing_on=standing_on, now=now)
            taken = self._store.take(
                Kind.VERIFIER, spent, put=records, changes=changes, standing_on=standing_on, now=now
            )
            return taken is not None
        except NotStanding:
            return False

    def _end(self, interaction: Interaction, spent: str | None, beside: Beside, *, now: int) -> bool:
        row = interaction.row
        taken = self._store.take(
            Kind.INTERACTION,
            row.id_hash,
            version=row.version,
            put=beside.records,
            changes=beside.changes,
            falling=() if spent is None else (Fitting(Kind.VERIFIER, id_hash=spent),),
            standing_on=beside.standing_on,
            now=now,
        )
        return taken is not None

    def report(self, interaction: Interaction, report: Report, *, now: int) -> str | None:
        """Store the backend's report. Returns the verifier for the browser, or None if the interaction is over."""
        verifier = new_handle()
        record = self.verifier_record(interaction, verifier, report, now=now)
        try:
            self._store.put(record, standing_on=[on_interaction(interaction)], now=now)
        except NotStanding:
            return None
        return verifier

    def verifier_record(self, interaction: Interaction, verifier: str, report: Report, *, now: int) -> Record:
        """The record of a report, which the browser's verifier finds."""
        body = {
            "sid": report.sid,
            "user_id": report.user_id,
            "scope": None if report.scope is None else list(report.scope),
            "remember": report.remember,
            "error": dict(report.error),
        }
        expires_at = now + self._lifetimes.verifier_s
        return Record(Kind.VERIFIER, hash_handle(verifier), expires_at, grant_id=interaction.id, body=body)

    def find_report(self, interaction: Interaction, unverified_verifier: str, *, now: int) -> Report | None:
        """The report for this interaction, until it is used: see `keep`."""
        record = self._store.get(Kind.VERIFIER, hash_handle(unverified_verifier), now=now)
        if record is None or record.grant_id != interaction.id:
            return None
        body = record.body
        scope = None if body["scope"] is None else tuple(body["scope"])
        return Report(body["sid"], body["user_id"], scope, body["remember"], body["error"])


def on_interaction(interaction: Interaction) -> Fitting:
    """Reports depend on their interaction: it must not be over."""
    return Fitting(Kind.INTERACTION, id_hash=interaction.row.id_hash)


def _id_hash(unverified_id: str) -> str:
    """The id of an interaction's record, distinct from all other stored ids."""
    return hash_handle(f"interaction\n{unverified_id}")


# --- its row ---


def _of_record(record: Record) -> Interaction:
    body = record.body
    return Interaction(
        id=body["id"],
        issuer=body["issuer"],
        parameters=from_kept(body["request"]),
        browser_hash=body["browser_hash"],
        state=_state_of(body["state"]),
        row=record,
        hint_subject=body["hint_subject"],
    )


def _state_of(members: Mapping[str, Any]) -> State:
    """Read the state from its members. Unknown members are ignored, and missing ones have their first value."""
    known = {item.name: members[item.name] for item in fields(State) if item.name in members}
    if (agreed := known.get("consent")) is not None:
        known["consent"] = Consent(agreed["user_id"], tuple(agreed["scope"]))
    known["shown"] = tuple(known.get("shown", ()))
    known["step"] = Step(known.get("step", Step.LOGIN))
    return State(**known)


def _changed(interaction: Interaction, state: State) -> Record:
    """The row with the changed parts of the state. Everything else stays, even if this version does not know it."""
    row, known = interaction.row, asdict(interaction.state)
    new = {name: value for name, value in asdict(state).items() if value != known[name]}
    return replace(row, body={**row.body, "state": {**row.body["state"], **new}})


def _where_it_is(wanted: Record) -> Change:
    """The change to that row, if its version is still the one that was read."""
    return Change(
        wanted.kind, wanted.id_hash, lambda known: wanted if known.version == wanted.version else None
    )
