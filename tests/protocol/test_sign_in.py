"""The sign-in as a state machine, driven through random events: what no order of them may lead to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.protocol.authorize import AFTER_TRUST, BEFORE_TRUST, Asked, build_request, check_request
from service.protocol.sign_in import (
    MAX_SIGN_IN_ATTEMPTS,
    AskConsent,
    CameBack,
    Consented,
    Denied,
    Effect,
    Event,
    Facts,
    Reported,
    SendCode,
    SendError,
    ShowPage,
    ToSignIn,
    kept_with,
    preferred_sid,
    step,
)
from service.protocol.sign_in import Asked as WasAsked
from service.records.clients import Client, ClientSecret
from service.records.interactions import Report, State, Step
from service.records.sessions import Session

NOW = 1_800_000_000
URI = "https://rp.example.org/cb"
WORDS = ("openid", "email", "phone")
CLIENT = Client("c", (URI,), "environment", secrets=(ClientSecret("h"),), grant_types=("authorization_code",))
GOOD = {
    "client_id": "c",
    "redirect_uri": URI,
    "response_type": "code",
    "code_challenge": "x" * 43,
    "code_challenge_method": "S256",
}
USERS = st.sampled_from(["ada", "bob"])
MAX_AGES = st.sampled_from([None, None, None, "0", "50"])
SCOPES = st.sets(st.sampled_from(WORDS), min_size=1).map(lambda some: tuple(w for w in WORDS if w in some))
PROMPTS = st.sampled_from([None, None, "none", "login", "consent", "login consent", "select_account"])


class SignIn(RuleBasedStateMachine):
    """A browser, its app and its operator, in any order; every state is stored before its effect happens."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.state = State(began_at=NOW)
        self.client = CLIENT
        self.sessions: dict[str, Session] = {}  # those that live, by sid
        self.in_browser: str | None = None
        self.remembered: dict[str, tuple[str, ...]] = {}
        self.forms: list[tuple[str, str, tuple[str, ...]]] = []  # token, whom it was shown, what
        self.reports: list[Report] = []
        self.said_yes: dict[str, set[str]] = {}  # user -> all that they agreed to in this very sign-in
        self.to_sign_in = 0
        self.ended: Effect | None = None
        self.made = 0

    @initialize(
        first_party=st.sampled_from([False, False, True]),
        remembered=st.dictionaries(USERS, SCOPES, max_size=1),
        user=st.sampled_from(["ada", "ada", "bob", None]),
        scope=SCOPES,
        prompt=PROMPTS,
        max_age=MAX_AGES,
    )
    def somebody_signed_in_long_ago(
        self, first_party: bool, remembered: dict[str, tuple[str, ...]], user: str | None, **asked: Any
    ) -> None:
        """In the browser that the request comes from, if anybody did."""
        self.client = replace(CLIENT, first_party=first_party)
        self.remembered = dict(remembered)
        if user is not None:
            self._sign_in(user, ago_s=100)
        self._asks(**asked)

    @precondition(lambda self: self.ended is not None)
    @rule(scope=SCOPES, prompt=PROMPTS, max_age=MAX_AGES)
    def the_client_asks_again(self, **asked: Any) -> None:
        """When one sign-in is over, another begins."""
        self._asks(**asked)

    def _asks(self, scope: tuple[str, ...], prompt: str | None, max_age: str | None) -> None:
        self.client = replace(self.client, scope=WORDS)
        self.wish = {"scope": " ".join(scope), "prompt": prompt, "max_age": max_age}
        self.state = State(began_at=self.now)
        self.forms, self.reports, self.said_yes = [], [], {}
        self.to_sign_in, self.ended = 0, None
        self._happens(WasAsked())

    # --- what the world does ---

    @rule(user=USERS, ago_s=st.sampled_from([0, 10, 31, 100]))
    def signs_in_by_the_cookie(self, user: str, ago_s: int) -> None:
        """Somebody signs in in this browser, by the app's cookie."""
        self._sign_in(user, ago_s=ago_s)

    @rule()
    def signs_out(self) -> None:
        """The browser's session ends."""
        self.sessions.pop(self.in_browser or "", None)

    @rule(scope=SCOPES, first_party=st.sampled_from([False, False, True]))
    def the_client_changes(self, scope: tuple[str, ...], first_party: bool) -> None:
        """The operator gives it other rights; one that may have nothing that was asked is refused before the rules are asked."""
        changed = replace(self.client, scope=scope, first_party=first_party)
        if set(scope) & set((self.wish["scope"] or "").split()):
            self.client = changed

    @rule(seconds=st.sampled_from([1, 30, 60]))
    def time_goes_by(self, seconds: int) -> None:
        """A minute is enough for max_age to be over."""
        self.now += seconds

    @rule(user=USERS, ago_s=st.sampled_from([0, 31]))
    def the_app_reports_a_sign_in(self, user: str, ago_s: int) -> None:
        """The verifier for it waits for a browser."""
        before = self.in_browser
        session = self._sign_in(user, ago_s=ago_s)
        self.in_browser = before  # until the browser brings the verifier
        self.reports.append(Report(sid=session.sid, user_id=user))

    @rule(user=USERS, scope=SCOPES, remember=st.booleans())
    def the_app_reports_a_consent(self, user: str, scope: tuple[str, ...], remember: bool) -> None:
        """Whether or not that user was asked."""
        self.reports.append(Report(user_id=user, scope=scope, remember=remember))

    @precondition(lambda self: self.made > 1)
    @rule()
    def the_app_rejects(self) -> None:
        """Nobody signed in."""
        self.reports.append(Report(error={"error": "access_denied", "error_description": "No."}))

    # --- what the browser does ---

    @rule(form=st.sampled_from([True, True, False]))
    def comes_back(self, form: bool) -> None:
        """In any tab, with or without a place for our form."""
        self._happens(CameBack(), has_form=form)

    @rule(which=st.integers(0, 2))
    def brings_a_verifier(self, which: int) -> None:
        """Each once; after that nobody knows it."""
        self._happens(Reported(self.reports[which] if which < len(self.reports) else None))

    @precondition(lambda self: self.forms)
    @rule(which=st.integers(0, 3), yes=st.booleans())
    def answers_a_form(self, which: int, yes: bool) -> None:
        """Of all that were shown any one, or one that never was."""
        token = self.forms[which][0] if which < len(self.forms) else "never"
        self._happens(Consented(token) if yes else Denied(token))

    @precondition(lambda self: self.forms)
    @rule(yes=st.booleans())
    def answers_the_form_shown_last(self, yes: bool) -> None:
        """As most do."""
        token = self.forms[-1][0]
        self._happens(Consented(token) if yes else Denied(token))

    @precondition(lambda self: self.forms)
    @rule(user=USERS, yes=st.booleans())
    def another_answers_the_form(self, user: str, yes: bool) -> None:
        """Somebody signs in in another tab before the form is sent."""
        self._sign_in(user, ago_s=0)
        self.answers_the_form_shown_last(yes)

    # --- what must hold ---

    @invariant()
    def nobody_is_sent_to_sign_in_more_than_twice(self) -> None:
        """Once, and one more try."""
        assert self.state.sign_in_attempts == self.to_sign_in <= MAX_SIGN_IN_ATTEMPTS

    @invariant()
    def what_is_over_is_over(self) -> None:
        """And nothing else is: it ends with the client's answer, once."""
        assert (self.state.step is Step.OVER) == (self.ended is not None)

    # --- how ---

    def _sign_in(self, user: str, *, ago_s: int) -> Session:
        self.made += 1
        at = self.now - ago_s
        session = Session(f"sid-{self.made}", "0" * 64, "pylon_0", user, at, self.now + 9_000, 9_000, at)
        self.sessions[session.sid] = session
        self.in_browser = session.sid
        return session

    def _facts(self, event: Event, *, has_form: bool) -> Facts:
        asked = Asked({**GOOD, **{k: v for k, v in self.wish.items() if v}}, frozenset(), self.client)
        check_request(asked, BEFORE_TRUST + AFTER_TRUST)
        sid = preferred_sid(self.state, event)
        reported = isinstance(event, Reported) and event.report is not None and event.report.sid == sid
        session = self.sessions.get(sid or "") if reported else None
        session = session or self.sessions.get(self.in_browser or "")
        remembered = () if session is None else self.remembered.get(session.user_id, ())
        token = f"form-{self.now}-{len(self.forms)}" if has_form else None
        return Facts(build_request(asked), session, remembered, token)

    def _happens(self, event: Event, *, has_form: bool = False) -> None:
        facts, before = self._facts(event, has_form=has_form), self.state
        after, effect = step(before, event, facts, now=self.now)
        if before.step is Step.OVER:
            assert (after, effect) == (before, ShowPage("interaction_over"))
            return
        self._note_yes(before, event, facts)
        kept = kept_with(before, after, event, facts)
        if kept.remembered is not None:
            user, scope = kept.remembered
            assert set(scope) <= self.said_yes[user]
            self.remembered[user] = (*self.remembered.get(user, ()), *scope)
        if kept.signed_in is not None:
            self.in_browser = kept.signed_in.sid
        if isinstance(event, Reported) and event.report is not None:
            self.reports.remove(event.report)
        self.state = after
        self._check(before, facts, effect)

    def _note_yes(self, before: State, event: Event, facts: Facts) -> None:
        """Who agreed, and to what: the session that was asked, to the form shown last, or to what the app's page showed."""
        if facts.session is None or facts.session.sid != before.asked_sid:
            return
        yes = self.said_yes.setdefault(facts.session.user_id, set())
        match event:
            case Consented(token) if self.forms and token == self.forms[-1][0] and before.form_token_hash:
                _, whom, shown = self.forms[-1]
                assert whom == facts.session.user_id
                yes.update(shown)
            case Reported(Report(user_id=user, scope=scope)) if scope and user == facts.session.user_id:
                yes.update(word for word in before.shown if word in ("openid", *scope))

    def _check(self, before: State, facts: Facts, effect: Effect) -> None:
        silent = "none" in facts.request.prompt
        match effect:
            case ToSignIn():
                assert not silent
                self.to_sign_in += 1
            case AskConsent(shown, token):
                assert not silent and facts.session is not None
                assert set(shown) <= set(facts.request.disclosed)
                if before.asked_user_id == facts.session.user_id:  # it does not grow under their eyes
                    assert set(shown) <= set(before.shown)
                if token is not None:
                    self.forms.append((token, facts.session.user_id, shown))
                elif self.made % 2:  # of the others the app's page asks
                    self._happens(CameBack(), has_form=True)
            case SendCode():
                self._check_code(before, facts, effect)
                self.ended = effect
            case SendError():
                self.ended = effect
            case ShowPage(cause):
                assert cause in {"verifier_over", "not_the_form_shown"}
                assert self.state == before

    def _check_code(self, before: State, facts: Facts, code: SendCode) -> None:
        session, given = code.session, {*code.request.scope, *code.request.disclosed}
        assert self.sessions[session.sid] is session
        assert code.request.scope and given <= set(facts.request.disclosed)
        if not self.client.first_party:
            allowed = self.remembered.get(session.user_id, ()) if code.unasked else ()
            assert given <= {*allowed, *self.said_yes.get(session.user_id, ())}
        if "consent" in facts.request.prompt:
            assert given <= self.said_yes[session.user_id]
        if facts.request.max_age == 0 or {"login", "select_account"} & facts.request.prompt:
            assert session.auth_time >= before.began_at - 30 and session.sid != before.sid_before


TestSignIn: Any = SignIn.TestCase
TestSignIn.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
