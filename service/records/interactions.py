"""Interactions: an authorization request that waits for its user, bound to the browser that began it.

What was asked stays on the server between the steps. Going on takes the interaction's cookie, and where the app's
backend reported something, also the verifier that only the browser which the app saw was given.

A state is stored where the one before it still is what was read; what its effect needs is stored with it, or neither is.

Spec: OpenID Connect Core 1.0 §3.1.2.3; RFC 9700 §4.7 (the browser that begins is the browser that ends)
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
    """What the user has to do, or that there is nothing left to do."""

    LOGIN = "login"
    CONSENT = "consent"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user agreed to; nobody else's sign-in takes it over.

    Attributes:
        user_id: who.
        scope: to what, of that which was shown.
    """

    user_id: str
    scope: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """How far a sign-in has come.

    Attributes:
        began_at: Unix s of the request.
        step: what the user has to do now.
        sign_in_attempts: how often the user was sent to sign in.
        sid_before: the session that the browser had when it began.
        signed_in_sid: the session that the app's backend reported for this very interaction.
        consent: what a user agreed to in it; None before anybody did.
        asked_sid, asked_user_id: the session whose user is asked to consent; nobody else's answer counts.
        shown: the scope that this user was shown, the first time already: it never grows under their eyes.
        form_token_hash: hash of the one-time token of the consent form that was shown last.
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
        """What this user agreed to; None where they did not."""
        return self.consent.scope if self.consent is not None and self.consent.user_id == user_id else None


@dataclass(frozen=True, slots=True)
class Interaction:
    """One waiting request.

    Attributes:
        id: names it to the app; not secret.
        issuer: under which issuer it began.
        parameters: what was asked, as far as it is kept.
        browser_hash: hash of the cookie of the browser that began it.
        state: how far it has come.
        row: as it was read; members that this version does not know stay in it.
        hint_subject: which user an `id_token_hint` named.
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
        """Whether the cookie is the one of the browser that began it."""
        return unverified_cookie is not None and hmac.compare_digest(
            hash_handle(unverified_cookie), self.browser_hash
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What the app's backend reported; taken once by the browser that holds the verifier.

    Attributes:
        sid: of the session that it began; None for a consent.
        user_id: who signed in, or who was asked.
        scope: what of that which was shown they agreed to; None for a sign-in.
        remember: whether they shall not be asked again.
        error: what the client is told instead.
    """

    sid: str | None = None
    user_id: str | None = None
    scope: tuple[str, ...] | None = None
    remember: bool = True
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is stored together with a state: what is new, what changes, and what must be there for it."""

    records: tuple[Record, ...] = ()
    changes: tuple[Change, ...] = ()
    standing_on: tuple[Fitting, ...] = ()

    def __add__(self, other: Beside) -> Beside:
        """Both of them; what both stand on is looked at once."""
        return Beside(
            self.records + other.records,
            self.changes + other.changes,
            tuple(dict.fromkeys(self.standing_on + other.standing_on)),
        )

    def put(self, store: Store, *, now: int) -> bool:
        """Store it alone; False where something of what it stands on is gone."""
        try:
            return store.put(*self.records, changes=self.changes, standing_on=self.standing_on, now=now)
        except NotStanding:
            return False


NOTHING: Final = Beside()


class Interactions:
    """Keeps interactions.

    Args:
        waiting: where they live.
        lifetimes: how long.
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
        """Keep a request.

        Args:
            parameters: of the request, as far as they are kept; it has passed every check, that of its size too.
            state: how far it has come already.
            hint_subject: which user an `id_token_hint` named.
            issuer: under which issuer.
            address: whose it is, empty where nobody knows.
            now: Unix s.

        Returns:
            The interaction, and the value of its cookie, known only now.
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
        """The live interaction of that id, under that issuer unless it is None."""
        record = self._store.get(Kind.INTERACTION, _id_hash(interaction_id), now=now)
        if record is None or issuer not in (None, record.body["issuer"]):
            return None
        return _of_record(record) if "state" in record.body else None  # one of 0.1 is over

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
        """Keep the state that came of this one, with all that it needs: one transaction.

        Args:
            interaction: as it was read.
            state: what came of its state; one that is over is not kept, the interaction goes.
            beside: what is stored together with it.
            unverified_verifier: of the report that was used for it: it is spent.
            answered: the answer to a form: kept for a minute, sealed under the form's token, so that the same form
                gets it again.
            now: Unix s.

        Returns:
            False, with nothing kept, where somebody else was faster, or something of what it stands on is gone.
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
        """Keep what the backend reports; the verifier that the browser shall bring, or None where it is over."""
        verifier = new_handle()
        record = self.verifier_record(interaction, verifier, report, now=now)
        try:
            self._store.put(record, standing_on=[on_interaction(interaction)], now=now)
        except NotStanding:
            return None
        return verifier

    def verifier_record(self, interaction: Interaction, verifier: str, report: Report, *, now: int) -> Record:
        """What is kept of a report, found by the verifier that the browser shall bring."""
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
        """What was reported for this interaction, as long as nobody has used it: see `keep`."""
        record = self._store.get(Kind.VERIFIER, hash_handle(unverified_verifier), now=now)
        if record is None or record.grant_id != interaction.id:
            return None
        body = record.body
        scope = None if body["scope"] is None else tuple(body["scope"])
        return Report(body["sid"], body["user_id"], scope, body["remember"], body["error"])


def on_interaction(interaction: Interaction) -> Fitting:
    """What is reported for an interaction stands on it: it is not over."""
    return Fitting(Kind.INTERACTION, id_hash=interaction.row.id_hash)


def _id_hash(unverified_id: str) -> str:
    """The id of an interaction, which nothing else that waits has."""
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
    """The state of its members by their names: what a later version added is passed over, what it lacks is as at first."""
    known = {item.name: members[item.name] for item in fields(State) if item.name in members}
    if (agreed := known.get("consent")) is not None:
        known["consent"] = Consent(agreed["user_id"], tuple(agreed["scope"]))
    known["shown"] = tuple(known.get("shown", ()))
    known["step"] = Step(known.get("step", Step.LOGIN))
    return State(**known)


def _changed(interaction: Interaction, state: State) -> Record:
    """The row with what is new in the state; all else stays as it is, whether or not this version knows it."""
    row, known = interaction.row, asdict(interaction.state)
    new = {name: value for name, value in asdict(state).items() if value != known[name]}
    return replace(row, body={**row.body, "state": {**row.body["state"], **new}})


def _where_it_is(wanted: Record) -> Change:
    """The change to that row where it still is of the version that was read."""
    return Change(
        wanted.kind, wanted.id_hash, lambda known: wanted if known.version == wanted.version else None
    )
