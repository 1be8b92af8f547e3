"""The sign-in as a state machine: `step(state, event, facts)` returns the next state and its effect.

It reads and stores nothing. The caller reads the facts first, then stores the new state together with what the effect
needs, and only then runs the effect. If the state has changed in the meantime, the caller starts again.

Spec: OpenID Connect Core 1.0 §3.1.2.1, §3.1.2.3, §3.1.2.4, §5.5.1.1
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from service.handles import hash_handle
from service.policies.deciding import BY_SIGNING_IN, unmet_requirement
from service.protocol.authorize import AuthorizationRequest, cut_to
from service.protocol.consent import can_be_remembered
from service.protocol.errors import OAuthError
from service.records.interactions import Consent, Report, State, Step
from service.records.sessions import Session

#: How long before the request a sign-in that the app reports may have happened.
SIGN_IN_LEEWAY_S: Final = 30
#: How often a user is sent to sign in before the client gets an error.
MAX_SIGN_IN_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known at an event.

    Attributes:
        request: the request, checked with the client's current registration.
        session: the session of this browser; for several sessions, see `preferred_sid`.
        remembered: the consent that this user has let us remember for this client.
        form_token: the token for a consent form; None if the answer cannot show a form.
        can_sign_in: whether there is a sign-in page.
    """

    request: AuthorizationRequest
    session: Session | None = None
    remembered: tuple[str, ...] = ()
    form_token: str | None = None
    can_sign_in: bool = True


# --- events ---


@dataclass(frozen=True, slots=True)
class Asked:
    """The request has arrived."""


@dataclass(frozen=True, slots=True)
class CameBack:
    """The browser has come back without a report. Its cookie shows who has signed in, if anyone has."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The browser brings the report of the app's backend; None if its verifier is unknown or no longer valid."""

    report: Report | None


@dataclass(frozen=True, slots=True)
class Consented:
    """The user has agreed on our form, which has this one-time token."""

    unverified_token: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The user has refused on our form, which has this one-time token."""

    unverified_token: str


Event = Asked | CameBack | Reported | Consented | Denied


# --- effects ---


@dataclass(frozen=True, slots=True)
class ToSignIn:
    """Send the browser to the sign-in page."""


@dataclass(frozen=True, slots=True)
class AskConsent:
    """Ask the user for consent: with our form and this token, on the app's page, or first at the form's own address."""

    shown: tuple[str, ...]
    form_token: str | None


@dataclass(frozen=True, slots=True)
class SendCode:
    """Send the client a code.

    Attributes:
        request: limited to what the user agreed to.
        session: the user's session, which the code depends on.
        unasked: whether a remembered consent was used; the code then depends on it too.
    """

    request: AuthorizationRequest
    session: Session
    unasked: bool


@dataclass(frozen=True, slots=True)
class SendError:
    """Send the client an error."""

    error: OAuthError


@dataclass(frozen=True, slots=True)
class ShowPage:
    """Show the user an error page.

    Attributes:
        cause: the reason, as one word for the log.
        status: HTTP status.
        back: where the user can go back to, if known.
        client_id: the client of the request, for the log, if known.
    """

    cause: str
    status: int = 400
    back: str | None = None
    client_id: str | None = None


Effect = ToSignIn | AskConsent | SendCode | SendError | ShowPage


@dataclass(frozen=True, slots=True)
class Kept:
    """What to store with a state, in addition to what its effect needs.

    Attributes:
        signed_in: the session that this browser has from now on.
        remembered: the consent to remember for this user and client.
    """

    signed_in: Session | None = None
    remembered: tuple[str, tuple[str, ...]] | None = None


OVER: Final = ShowPage("interaction_over")


def preferred_sid(state: State, event: Event) -> str | None:
    """Which of a browser's sessions counts: the one that answered the form, was reported, or was used before."""
    match event:
        case Consented() | Denied():
            return state.asked_sid
        case Reported(Report(sid=None, scope=scope)) if scope is not None:
            return state.asked_sid
        case Reported(Report(sid=sid)) if sid is not None:
            return sid
        case _:
            return state.signed_in_sid


def step(state: State, event: Event, facts: Facts, *, now: int) -> tuple[State, Effect]:
    """Compute the next state.

    Args:
        state: the current state of the sign-in.
        event: what happened.
        facts: what is known now.
        now: Unix s.

    Returns:
        The state to store, and the effect to run once it is stored.
    """
    if state.step is Step.OVER:
        return state, OVER
    match event:
        case Asked() | CameBack():
            return _go_on(state, facts, now)
        case Reported(report):
            return _reported(state, report, facts, now)
        case Consented(token) | Denied(token):
            return _answered(state, token, facts, now, yes=isinstance(event, Consented))


def kept_with(before: State, after: State, event: Event, facts: Facts) -> Kept:
    """What to store with the new state."""
    report = event.report if isinstance(event, Reported) else None
    session = facts.session
    if session is None:
        return Kept()
    signed_in = session if report is not None and report.sid == session.sid else None
    given = after.consent if after.consent is not before.consent else None
    is_wanted = report is None or report.remember
    if given is None or not is_wanted or not can_be_remembered(facts.request):
        return Kept(signed_in)
    return Kept(signed_in, (given.user_id, given.scope))


def _reported(state: State, report: Report | None, facts: Facts, now: int) -> tuple[State, Effect]:
    if report is None:
        return state, ShowPage("verifier_over")
    if report.error:
        words = report.error["error"], report.error["error_description"]
        return _told(state, OAuthError(*words, cause="rejected_by_app"))
    if report.sid is not None:
        return _go_on(replace(state, signed_in_sid=report.sid), facts, now)
    # Agreeing to nothing is not consent.
    if report.scope and _is_who_was_asked(state, facts.session) and report.user_id == state.asked_user_id:
        # Every sign-in identifies the user to the client, so openid cannot be removed.
        scope = tuple(word for word in state.shown if word in ("openid", *report.scope))
        state = replace(state, consent=Consent(state.asked_user_id, scope))
    return _go_on(state, facts, now)


def _answered(state: State, token: str, facts: Facts, now: int, *, yes: bool) -> tuple[State, Effect]:
    if not state.form_token_hash or hash_handle(token) != state.form_token_hash:
        return state, ShowPage("not_the_form_shown", 403)
    if not _is_who_was_asked(state, facts.session):
        return _go_on(state, facts, now)
    if not yes:
        return _told(
            state, OAuthError("access_denied", "The user denied the request.", cause="denied_by_user")
        )
    return _go_on(replace(state, consent=Consent(state.asked_user_id, state.shown)), facts, now)


def _is_who_was_asked(state: State, session: Session | None) -> bool:
    asked = (state.asked_user_id, state.asked_sid)
    return session is not None and (session.user_id, session.sid) == asked


def _told(state: State, error: OAuthError) -> tuple[State, Effect]:
    return replace(state, step=Step.OVER), SendError(error)


def _go_on(state: State, facts: Facts, now: int) -> tuple[State, Effect]:
    """Continue with the sign-in, then consent, then the code; or with an error that the user cannot prevent."""
    request, session = facts.request, facts.session
    if state.sign_in_attempts == 0:  # it may have started with a POST, which sends no session cookie
        state = replace(state, sid_before=None if session is None else session.sid)
    unmet = _unmet_by_session(request, state, session, now)
    if unmet is None and session is not None and (denied := _denied_by_policy(request, session, now)):
        return _told(state, denied)
    if unmet is not None or session is None:
        if "none" in request.prompt or state.sign_in_attempts >= MAX_SIGN_IN_ATTEMPTS:
            return _told(state, unmet or OAuthError("login_required", "Nobody is signed in."))
        if not facts.can_sign_in:
            return state, ShowPage("no_login_url", 501)
        return replace(state, step=Step.LOGIN, sign_in_attempts=state.sign_in_attempts + 1), ToSignIn()
    return _for_user(state, session, facts)


def _for_user(state: State, session: Session, facts: Facts) -> tuple[State, Effect]:
    """The next step for a user who has signed in as required: consent, or the code."""
    request, first_party = facts.request, facts.request.client.first_party
    agreed = state.agreed_by(session.user_id)
    if agreed is not None:
        request = cut_to(request, agreed)
        if not request.scope:
            words = "The client may no longer have what the user agreed to."
            return _told(state, OAuthError("invalid_scope", words))
        return replace(state, step=Step.OVER), SendCode(request, session, unasked=False)
    if "consent" not in request.prompt and (first_party or _agreed_before(facts)):
        return replace(state, step=Step.OVER), SendCode(request, session, unasked=not first_party)
    if "none" in request.prompt:
        return _told(state, OAuthError("consent_required", "The user has not agreed to this yet."))
    return _ask(state, request, session, facts.form_token)


def _agreed_before(facts: Facts) -> bool:
    return can_be_remembered(facts.request) and set(facts.request.disclosed) <= set(facts.remembered)


def _ask(
    state: State, request: AuthorizationRequest, session: Session, form_token: str | None
) -> tuple[State, Effect]:
    shown = request.disclosed
    if state.asked_user_id == session.user_id:  # a page that is still open has shown no more than this
        shown = tuple(word for word in state.shown if word in shown)
    asked = replace(
        state,
        step=Step.CONSENT,
        asked_sid=session.sid,
        asked_user_id=session.user_id,
        shown=shown,
        # A form that was shown to another user is no longer valid.
        form_token_hash="" if form_token is None else hash_handle(form_token),
    )
    return asked, AskConsent(shown, form_token)


def _unmet_by_session(
    request: AuthorizationRequest, state: State, session: Session | None, now: int
) -> OAuthError | None:
    if session is None:
        return OAuthError("login_required", "Nobody is signed in.")
    fresh = _is_fresh(session, state)
    # max_age=0 is prompt=login (OpenID Connect Core §3.1.2.1).
    anew = request.max_age == 0 or {"login", "select_account"} & request.prompt
    if anew and not fresh:
        return OAuthError("login_required", "The user did not sign in again.")
    # Both times are cut to whole seconds, so if their difference is max_age, more time may have passed.
    if request.max_age is not None and not fresh and now - session.auth_time >= request.max_age:
        return OAuthError("login_required", "The user signed in too long ago.")
    if not _is_asked_user(request, session.user_id):
        return OAuthError("login_required", "Another user is signed in.")
    if not _meets_essential_acr(request, session.acr):
        return OAuthError("unmet_authentication_requirements", "The sign-in did not use the required method.")
    return _unmet_by_policy(request, session, now)


def _unmet_by_policy(request: AuthorizationRequest, session: Session, now: int) -> OAuthError | None:
    """The error if the sign-in does not meet a policy. A policy's requirements count like essential ones of the request."""
    for rule in _unmet_rules(request, session, now):
        if rule == "max_session_age_s":
            return OAuthError(
                "login_required", "The user signed in too long ago for the resource.", cause=f"require_{rule}"
            )
        if rule in BY_SIGNING_IN:
            words = "The sign-in did not use the method that the resource requires."
            return OAuthError("unmet_authentication_requirements", words, cause=f"require_{rule}")
    return None


def _denied_by_policy(request: AuthorizationRequest, session: Session, now: int) -> OAuthError | None:
    """The error if a policy refuses this user however they sign in."""
    for rule in _unmet_rules(request, session, now):
        if rule not in BY_SIGNING_IN:
            words = "This user may not have a token for the resource."
            return OAuthError("access_denied", words, cause=f"require_{rule}")
    return None


def _unmet_rules(request: AuthorizationRequest, session: Session, now: int) -> list[str]:
    unmet = (unmet_requirement(policy.require, session, now) for policy in request.audiences)
    return [rule for rule in unmet if rule is not None]


def _is_asked_user(request: AuthorizationRequest, user_id: str) -> bool:
    wanted = request.id_token_claims.get("sub")
    return request.hint_subject in (None, user_id) and (
        wanted is None or not wanted.values or user_id in wanted.values
    )


def _meets_essential_acr(request: AuthorizationRequest, acr: str | None) -> bool:
    wanted = request.id_token_claims.get("acr")
    if wanted is None or not wanted.essential:
        return True
    return acr is not None and (not wanted.values or acr in wanted.values)


def _is_fresh(session: Session, state: State) -> bool:
    """Whether the user signed in for this interaction.

    That is the case if the app's backend reported it, or if the shared cookie has a session that the browser did not
    have at the start; unless the session or its `auth_time` is much older than the interaction.
    """
    reported = state.signed_in_sid == session.sid
    # The clocks of two replicas may differ a little.
    earliest = state.began_at - SIGN_IN_LEEWAY_S
    begun_since = session.created_at >= earliest and session.sid != state.sid_before
    return (reported or begun_since) and session.auth_time >= earliest
