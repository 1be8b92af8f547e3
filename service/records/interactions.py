"""Interactions: an authorization request that waits for its user, bound to the browser that began it.

What was asked stays on the server between the steps. Going on takes the interaction's cookie, and where the app's
backend reported something, also the verifier that only the browser which the app saw was given.

Spec: OpenID Connect Core 1.0 §3.1.2.3; RFC 9700 §4.7 (the browser that begins is the browser that ends)
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from service import handles
from service.handles import hash_handle, new_handle, new_id, new_version
from service.records.clients import Client, on_client
from service.records.consents import consent_id
from service.records.grants import Grants, NewCode
from service.records.lifetimes import Lifetimes
from service.records.sealing import Unreadable, seal, unseal
from service.records.sessions import Session, on_session
from service.records.waiting import Waiting, as_kept, from_kept
from service.storage.interface import NEVER, Change, Decide, Fitting, Kind, NotStanding, Record

#: So long the same form gets the same answer again, in s: fingers press twice.
ANSWERED_S: Final = 60
_ANSWER: Final = "form answer"


class Step(StrEnum):
    """What the user has to do, or that there is nothing left."""

    LOGIN = "login"
    CONSENT = "consent"
    ISSUE = "issue"


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
class Progress:
    """What has happened in this interaction so far.

    Attributes:
        began_at: Unix s of the request.
        sign_in_attempts: how often the user was sent to sign in.
        sid_before: the session that the browser had when it began.
        signed_in_sid: the session that the app's backend reported for this very interaction.
        consent: what a user agreed to in it; None before anybody did.
    """

    began_at: int
    sign_in_attempts: int = 0
    sid_before: str | None = None
    signed_in_sid: str | None = None
    consent: Consent | None = None

    def agreed_by(self, user_id: str) -> tuple[str, ...] | None:
        """What this user agreed to; None where they did not."""
        return self.consent.scope if self.consent is not None and self.consent.user_id == user_id else None


@dataclass(frozen=True, slots=True)
class Interaction:
    """One waiting request.

    Attributes:
        id: names it to the app; not secret.
        issuer: under which issuer it began.
        address: from which address, as far as it is known.
        parameters: what was asked, as far as it is kept.
        hint_subject: which user an `id_token_hint` named.
        browser_hash: hash of the cookie of the browser that began it.
        step: what the user has to do now.
        progress: what has happened so far.
        asked_sid, asked_user_id: the session whose user is asked to consent; nobody else's answer counts.
        shown: the scope that this user was shown, the first time already: it never grows under their eyes.
        form_token_hash: hash of the one-time token of the consent form that was shown last.
        expires_at: Unix s.
    """

    id: str
    issuer: str
    address: str
    parameters: Mapping[str, str]
    browser_hash: str
    expires_at: int
    progress: Progress
    step: Step = Step.LOGIN
    asked_sid: str = ""
    asked_user_id: str = ""
    shown: tuple[str, ...] = ()
    form_token_hash: str = ""
    hint_subject: str | None = None

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
class Answered:
    """What the browser was sent for a form of ours.

    Attributes:
        form_token: the form's, by which it is found and read again.
        browser_hash: hash of the cookie of the browser that began the interaction.
        client_id: whose request it was.
        redirect_uri, response_mode: where the answer went, and how.
        parameters: the answer; empty where it is not to be sent again.
    """

    form_token: str
    browser_hash: str
    client_id: str
    redirect_uri: str
    response_mode: str
    parameters: Mapping[str, str]


class Interactions:
    """Keeps interactions.

    Args:
        waiting: where they live.
        lifetimes: how long.
    """

    def __init__(self, waiting: Waiting, lifetimes: Lifetimes) -> None:
        self._waiting = waiting
        self._store = waiting.store
        self._grants = Grants(waiting.store)
        self._lifetimes = lifetimes

    def begin(
        self,
        parameters: Mapping[str, str],
        *,
        hint_subject: str | None,
        issuer: str,
        address: str,
        sid_before: str | None,
        now: int,
    ) -> tuple[Interaction, str]:
        """Keep a request.

        Args:
            parameters: of the request, as far as they are kept; it has passed every check, that of its size too.
            hint_subject: which user an `id_token_hint` named.
            issuer: under which issuer.
            address: whose it is, empty where nobody knows.
            sid_before: the session that the browser has.
            now: Unix s.

        Returns:
            The interaction, and the value of its cookie, known only now.
        """
        cookie = new_handle()
        interaction = Interaction(
            id=new_id(),
            issuer=issuer,
            address=address,
            parameters=parameters,
            hint_subject=hint_subject,
            browser_hash=hash_handle(cookie),
            expires_at=now + self._lifetimes.interaction_s,
            progress=Progress(began_at=now, sid_before=sid_before),
        )
        self._waiting.keep(_to_record(interaction), now=now)
        return interaction, cookie

    def find(self, interaction_id: str, *, issuer: str | None, now: int) -> Interaction | None:
        """The live interaction of that id, under that issuer unless it is None."""
        record = self._store.get(Kind.INTERACTION, _id_hash(interaction_id), now=now)
        if record is None or issuer not in (None, record.body["issuer"]):
            return None
        return _from_record(record)

    def change(
        self, interaction: Interaction, decide: Callable[[Interaction], Interaction | None], *, now: int
    ) -> Interaction | None:
        """Keep what has changed, decided from what is kept by now; None where it is over, or `decide` leaves it."""
        id_hash = _id_hash(interaction.id)
        record = self._store.change(Kind.INTERACTION, id_hash, _on_record(decide), now=now)
        return None if record is None else _from_record(record)

    def finish(
        self, interaction: Interaction, code: NewCode | None, answered: Answered | None = None, *, now: int
    ) -> bool:
        """End it, and store the code that came of it, in one transaction; False when it is over already.

        With `answered`, the answer to a form, this is kept for a minute, sealed under the form's token, so that the
        same form gets it again.
        """
        put = () if code is None else code.records
        changes, standing_on = ((), ()) if code is None else (code.changes, code.standing_on)
        if answered is not None:
            put = (*put, _answer_record(interaction, answered, now=now))
        id_hash = _id_hash(interaction.id)
        taken = self._store.take(
            Kind.INTERACTION, id_hash, put=put, changes=changes, standing_on=standing_on, now=now
        )
        return taken is not None

    def answered(
        self, interaction_id: str, unverified_token: str, *, issuer: str, now: int
    ) -> Answered | None:
        """What this form was answered, in the minute after; a code in it that was used since is left out."""
        record = self._store.get(Kind.INTERACTION, _answer_hash(interaction_id, unverified_token), now=now)
        if record is None or record.body["issuer"] != issuer:
            return None
        try:
            kept = unseal(record.body["answer"], unverified_token, purpose=_ANSWER)
        except Unreadable:
            return None
        answered = Answered(unverified_token, record.body["browser_hash"], **kept)
        if "code" not in answered.parameters:
            return answered
        shown = handles.read("code", answered.parameters["code"])
        grant = None if shown is None else self._grants.find(shown.grant_id, now=now)
        is_unused = grant is not None and grant.code.spent_at is None
        return answered if is_unused else replace(answered, parameters={})

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

    def take_report(self, interaction: Interaction, unverified_verifier: str, *, now: int) -> Report | None:
        """What was reported, once. A verifier of another interaction is left alone."""
        id_hash = hash_handle(unverified_verifier)
        record = self._store.get(Kind.VERIFIER, id_hash, now=now)
        if record is None or record.grant_id != interaction.id:
            return None
        record = self._store.take(Kind.VERIFIER, id_hash, now=now)
        if record is None:
            return None
        body = record.body
        scope = None if body["scope"] is None else tuple(body["scope"])
        return Report(body["sid"], body["user_id"], scope, body["remember"], body["error"])

    # --- what a user lets a client remember ---

    def remembered_scope(self, user_id: str, client_id: str, issuer: str, *, now: int) -> tuple[str, ...]:
        """What the user agreed to for this client before."""
        record = self._store.get(Kind.CONSENT, consent_id(user_id, client_id, issuer), now=now)
        return () if record is None or record.client_id != client_id else tuple(record.body["scope"])

    def consent(
        self,
        interaction: Interaction,
        session: Session,
        client: Client,
        scope: tuple[str, ...],
        *,
        remember: bool,
        now: int,
    ) -> Interaction | None:
        """Keep what the user agreed to, and let the client have it without asking again: one transaction.

        Returns:
            None, with nothing kept, where the interaction is over, somebody else was asked or shown a form meanwhile,
            or session or client is gone or has changed. The same answer twice is one.
        """
        consent = Consent(session.user_id, scope)

        def agreed(known: Interaction) -> Interaction | None:
            if (known.asked_sid, known.form_token_hash) != (session.sid, interaction.form_token_hash):
                return None
            return advance(known, consent=consent)

        changes = [Change(Kind.INTERACTION, _id_hash(interaction.id), _on_record(agreed))]
        if remember:
            changes.append(_remembering(session.user_id, client.client_id, interaction.issuer, scope))
        try:
            self._store.put(changes=changes, standing_on=[on_session(session), *on_client(client)], now=now)
        except NotStanding:
            return None
        return advance(interaction, consent=consent)


def _remembering(user_id: str, client_id: str, issuer: str, scope: tuple[str, ...]) -> Change:
    """Lets a client have this scope without asking again, besides what was remembered before."""

    def widened(record: Record) -> Record:
        known = record.body["scope"]
        return replace(record, body={"scope": [*known, *(word for word in scope if word not in known)]})

    id_hash = consent_id(user_id, client_id, issuer)
    nothing = Record(
        Kind.CONSENT,
        id_hash,
        NEVER,
        user_id,
        body={"scope": []},
        client_id=client_id,
        version=new_version(),
    )
    return Change(Kind.CONSENT, id_hash, widened, new=nothing)


def _on_record(decide: Callable[[Interaction], Interaction | None]) -> Decide:
    def decided(record: Record) -> Record | None:
        interaction = decide(_from_record(record))
        return None if interaction is None else replace(_to_record(interaction), version=record.version)

    return decided


def advance(interaction: Interaction, **progress: Any) -> Interaction:
    """The interaction with its progress changed."""
    return replace(interaction, progress=replace(interaction.progress, **progress))


def on_interaction(interaction: Interaction) -> Fitting:
    """What is reported for an interaction stands on it: it is not over."""
    return Fitting(Kind.INTERACTION, id_hash=_id_hash(interaction.id))


def _id_hash(unverified_id: str) -> str:
    """The id of an interaction, which nothing else that waits has."""
    return hash_handle(f"interaction\n{unverified_id}")


def _answer_hash(interaction_id: str, unverified_token: str) -> str:
    return hash_handle(f"answer\n{interaction_id}\n{unverified_token}")


def _answer_record(interaction: Interaction, answered: Answered, *, now: int) -> Record:
    kept = {
        "client_id": answered.client_id,
        "redirect_uri": answered.redirect_uri,
        "response_mode": answered.response_mode,
        "parameters": dict(answered.parameters),
    }
    body = {
        "issuer": interaction.issuer,
        "browser_hash": answered.browser_hash,
        "answer": seal(kept, answered.form_token, purpose=_ANSWER),
    }
    id_hash = _answer_hash(interaction.id, answered.form_token)
    return Record(Kind.INTERACTION, id_hash, now + ANSWERED_S, interaction.address, body=body)


def _to_record(interaction: Interaction) -> Record:
    progress = interaction.progress
    body = {
        "id": interaction.id,
        "issuer": interaction.issuer,
        "request": as_kept(interaction.parameters),
        "hint_subject": interaction.hint_subject,
        "browser_hash": interaction.browser_hash,
        "step": interaction.step,
        "asked": [interaction.asked_user_id, interaction.asked_sid, list(interaction.shown)],
        "form_token_hash": interaction.form_token_hash,
        "progress": [
            progress.began_at,
            progress.sign_in_attempts,
            progress.sid_before,
            progress.signed_in_sid,
            None if progress.consent is None else [progress.consent.user_id, list(progress.consent.scope)],
        ],
    }
    return Record(
        Kind.INTERACTION, _id_hash(interaction.id), interaction.expires_at, interaction.address, body=body
    )


def _from_record(record: Record) -> Interaction:
    body = record.body
    began_at, attempts, sid_before, signed_in_sid, agreed = body["progress"]
    consent = None if agreed is None else Consent(agreed[0], tuple(agreed[1]))
    progress = Progress(began_at, attempts, sid_before, signed_in_sid, consent)
    asked_user_id, asked_sid, shown = body["asked"]
    return Interaction(
        id=body["id"],
        issuer=body["issuer"],
        address=record.subject,
        parameters=from_kept(body["request"]),
        hint_subject=body["hint_subject"],
        browser_hash=body["browser_hash"],
        expires_at=record.expires_at,
        progress=progress,
        step=Step(body["step"]),
        asked_sid=asked_sid,
        asked_user_id=asked_user_id,
        shown=tuple(shown),
        form_token_hash=body["form_token_hash"],
    )
