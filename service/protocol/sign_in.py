"""The sign-in as a state machine: `step(state, event, facts)` says what comes of a state, and what happens then.

It reads nothing and stores nothing. Facts are read before; the state that comes out is stored together with what the
effect needs, and only then does the effect happen. Where the state was another one by then, all is read again.

Spec: OpenID Connect Core 1.0 §3.1.2.1, §3.1.2.3, §3.1.2.4, §5.5.1.1
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from service.handles import hash_handle
from service.policies.deciding import BY_SIGNING_IN, unmet_requirement
from service.protocol.authorize import AuthorizationRequest, cut_to
from service.protocol.errors import OAuthError
from service.records.interactions import Consent, Report, State, Step
from service.records.sessions import Session

#: A sign-in that the app reports may have happened this long before the request came here.
SIGN_IN_LEEWAY_S: Final = 30
#: How often a user is sent to sign in before the client is told that it did not help.
MAX_SIGN_IN_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when something happens.

    Attributes:
        request: what was asked, checked with the client as it is now.
        session: who is signed in in this browser: of several, see `preferred_sid`.
        remembered: what this user let this client remember.
        form_token: of the consent form that this answer may show; None where a form has no place.
        can_sign_in: whether there is a sign-in page.
    """

    request: AuthorizationRequest
    session: Session | None = None
    remembered: tuple[str, ...] = ()
    form_token: str | None = None
    can_sign_in: bool = True


# --- what happens ---


@dataclass(frozen=True, slots=True)
class Asked:
    """The request came."""


@dataclass(frozen=True, slots=True)
class CameBack:
    """Its browser came back without a word: by the cookie it shows who has signed in, if anybody has."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The browser brings what the app's backend reported; None: nobody knows its verifier, or not any more."""

    report: Report | None


@dataclass(frozen=True, slots=True)
class Consented:
    """The user said yes on our form, which has this one-time token."""

    unverified_token: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The user said no on our form, which has this one-time token."""

    unverified_token: str


Event = Asked | CameBack | Reported | Consented | Denied


# --- what is done then ---


@dataclass(frozen=True, slots=True)
class ToSignIn:
    """The browser goes to the sign-in page."""


@dataclass(frozen=True, slots=True)
class AskConsent:
    """The user is asked: by our form with this token, by the app's page, or first at the form's own address."""

    shown: tuple[str, ...]
    form_token: str | None


@dataclass(frozen=True, slots=True)
class SendCode:
    """The client gets a code.

    Attributes:
        request: cut to what the user agreed to.
        session: whose it is; the code stands on it.
        unasked: whether what was remembered is why; then the code stands on that.
    """

    request: AuthorizationRequest
    session: Session
    unasked: bool


@dataclass(frozen=True, slots=True)
class SendError:
    """The client is told."""

    error: OAuthError


@dataclass(frozen=True, slots=True)
class ShowPage:
    """The user is told, on an error page.

    Attributes:
        cause: why, as one word for the log.
        status: HTTP status.
        back: where the user can go back to, where that is known.
        client_id: for the log: whose request it was, where that is known.
    """

    cause: str
    status: int = 400
    back: str | None = None
    client_id: str | None = None


Effect = ToSignIn | AskConsent | SendCode | SendError | ShowPage


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored with a state, besides what its effect needs.

    Attributes:
        signed_in: the session that this browser has from now on.
        remembered: what this user lets the client have without being asked again.
    """

    signed_in: Session | None = None
    remembered: tuple[str, tuple[str, ...]] | None = None


OVER: Final = ShowPage("interaction_over")


def preferred_sid(state: State, event: Event) -> str | None:
    """Whose session counts, of several that a browser has: whose answer it is, who was reported, or was so before."""
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
    """What comes of a state when something happens.

    Args:
        state: how far the sign-in has come.
        event: what happened.
        facts: what is known by now.
        now: Unix s.

    Returns:
        The state to store, and what is done once it is stored.
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
    """What is stored with the state that came of another."""
    report = event.report if isinstance(event, Reported) else None
    session = facts.session
    if session is None:
        return Kept()
    signed_in = session if report is not None and report.sid == session.sid else None
    given = after.consent if after.consent is not before.consent else None
    if given is None or (report is not None and not report.remember):
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
    # To nothing of what was asked: that is no consent.
    if report.scope and _is_who_was_asked(state, facts.session) and report.user_id == state.asked_user_id:
        # That they are known to the client at all is what every sign-in is about: openid is not taken out.
        scope = tuple(word for word in state.shown if word in ("openid", *report.scope))
        state = replace(state, consent=Consent(state.asked_user_id, scope))
    return _go_on(state, facts, now)


def _answered(state: State, token: str, facts: Facts, now: int, *, yes: bool) -> tuple[State, Effect]:
    if not state.form_token_hash or hash_handle(token) != state.form_token_hash:
        return state, ShowPage("not_the_form_shown", 403)
    if not _is_who_was_asked(state, facts.session):
        return _go_on(state, facts, now)
    if not yes:
        return _told(state, OAuthError("access_denied", "The user said no.", cause="denied_by_user"))
    return _go_on(replace(state, consent=Consent(state.asked_user_id, state.shown)), facts, now)


def _is_who_was_asked(state: State, session: Session | None) -> bool:
    asked = (state.asked_user_id, state.asked_sid)
    return session is not None and (session.user_id, session.sid) == asked


def _told(state: State, error: OAuthError) -> tuple[State, Effect]:
    return replace(state, step=Step.OVER), SendError(error)


def _go_on(state: State, facts: Facts, now: int) -> tuple[State, Effect]:
    """To the sign-in, then to the consent, then to the code; or the error that nothing the user could do would avert."""
    request, session = facts.request, facts.session
    if state.sign_in_attempts == 0:  # a POST may have begun it, which showed no session
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
    """What who has signed in as asked has still to do: agree, or nothing."""
    request, first_party = facts.request, facts.request.client.first_party
    agreed = state.agreed_by(session.user_id)
    if agreed is not None:
        request = cut_to(request, agreed)
        if not request.scope:
            words = "The client may no longer have what the user agreed to."
            return _told(state, OAuthError("invalid_scope", words))
        return replace(state, step=Step.OVER), SendCode(request, session, unasked=False)
    asked_before = set(request.disclosed) <= set(facts.remembered)
    if "consent" not in request.prompt and (first_party or asked_before):
        return replace(state, step=Step.OVER), SendCode(request, session, unasked=not first_party)
    if "none" in request.prompt:
        return _told(state, OAuthError("consent_required", "The user has not agreed to this yet."))
    return _ask(state, request, session, facts.form_token)


def _ask(
    state: State, request: AuthorizationRequest, session: Session, form_token: str | None
) -> tuple[State, Effect]:
    shown = request.disclosed
    if state.asked_user_id == session.user_id:  # a page that still lies open has shown no more than this
        shown = tuple(word for word in state.shown if word in shown)
    asked = replace(
        state,
        step=Step.CONSENT,
        asked_sid=session.sid,
        asked_user_id=session.user_id,
        shown=shown,
        # A form that was shown to somebody else answers nothing from now on.
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
    # Both times are cut to whole seconds: where their difference is max_age, more than that may have gone by.
    if request.max_age is not None and not fresh and now - session.auth_time >= request.max_age:
        return OAuthError("login_required", "The user signed in too long ago.")
    if not _is_asked_user(request, session.user_id):
        return OAuthError("login_required", "Another user is signed in.")
    if not _meets_essential_acr(request, session.acr):
        return OAuthError("unmet_authentication_requirements", "The sign-in was not by the required means.")
    return _unmet_by_policy(request, session, now)


def _unmet_by_policy(request: AuthorizationRequest, session: Session, now: int) -> OAuthError | None:
    """What a policy requires of the sign-in counts as if the request asked for it as essential."""
    for rule in _unmet_rules(request, session, now):
        if rule == "max_session_age_s":
            return OAuthError(
                "login_required", "The user signed in too long ago for the resource.", cause=f"require_{rule}"
            )
        if rule in BY_SIGNING_IN:
            words = "The sign-in was not by the means that the resource requires."
            return OAuthError("unmet_authentication_requirements", words, cause=f"require_{rule}")
    return None


def _denied_by_policy(request: AuthorizationRequest, session: Session, now: int) -> OAuthError | None:
    """What no other sign-in of this user would change."""
    for rule in _unmet_rules(request, session, now):
        if rule not in BY_SIGNING_IN:
            words = "This user may have no token for the resource."
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

    Reported by the app's backend for it, or through the shared cookie a session that the browser did not have when it
    began; unless the session or its `auth_time` lies well before the interaction.
    """
    reported = state.signed_in_sid == session.sid
    # The clocks of two replicas differ a little, whichever way.
    earliest = state.began_at - SIGN_IN_LEEWAY_S
    begun_since = session.created_at >= earliest and session.sid != state.sid_before
    return (reported or begun_since) and session.auth_time >= earliest
