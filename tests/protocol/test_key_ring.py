"""docs/keys.md: roles only by the clock, published long before and after signing, exactly one active, always a next."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.keys.ring import (
    DAY_S,
    KeyRecord,
    KeyRecords,
    Margins,
    NoSuchKey,
    UnsafeStep,
    published,
    role,
    signer,
    turns_at,
    with_role,
)
from service.keys.rotation import (
    added,
    imported,
    kept_long_enough,
    needs,
    rescheduled,
    revoked,
    rotated,
    rotation_is_safe_at,
    straightened,
    without_private_parts_of_gone,
)
from service.keys.timeline import coming, overdue
from tests.support.cases import each_of
from tests.support.key_rules import violations

T = 1_800_000_000
M = Margins()
BY_HAND = Margins(rotation_s=0)
R = M.rotation_s


def key(kid: str, alg: str = "RS256", **times: Any) -> KeyRecord:
    """A key with these times."""
    return KeyRecord(kid, alg, {"kid": kid}, {"data": kid}, **{"published_at": T, **times})


def whole(
    keys: KeyRecords = (), now: int = T, margins: Margins = M, algs: tuple[str, ...] = ("RS256",)
) -> KeyRecords:
    """The ring with what it lacks."""
    while missing := needs(keys, algs, now, margins):
        keys = added(keys, key(f"k{len(keys) + 1}", missing[0]), now, margins)
    return keys


def roles(keys: KeyRecords, now: int) -> dict[str, str]:
    """The role of each."""
    return {each.kid: role(each, now) for each in keys}


# --- roles ---


@each_of(
    ("now", "expected"),
    [
        (T, "next"),
        (T + 9, "next"),
        (T + 10, "active"),
        (T + 19, "active"),
        (T + 20, "retired"),
        (T + 30, "gone"),
    ],
)
def test_a_role_is_a_function_of_the_clock(now: int, expected: str) -> None:
    """Only by its own timestamps and the clock; each begins on its second."""
    assert role(key("k", signs_from=T + 10, retires_at=T + 20, gone_at=T + 30), now) == expected


def test_a_key_without_times_waits() -> None:
    """`PYLON_OIDC_KEY_ROTATION_DAYS` 0: by hand."""
    assert role(key("k"), T + 10**9) == "next"


def test_what_is_revoked_is_gone_whatever_the_clock_says() -> None:
    """A replica whose clock is behind believes a stolen key no longer than others."""
    assert role(key("k", signs_from=T, revoked_at=T + 50), T) == "gone"


def test_a_fresh_ring_signs_at_once_and_has_a_next() -> None:
    """Except for an algorithm's first key; there is always a next one."""
    keys = whole(algs=("RS256", "ES256"))
    assert [(each.alg, role(each, T)) for each in keys] == [
        ("RS256", "active"),
        ("RS256", "next"),
        ("ES256", "active"),
        ("ES256", "next"),
    ]
    assert violations(keys, T, M) == []


def test_the_next_key_signs_a_rotation_later_and_is_followed_a_day_before() -> None:
    """Published before signing; the one after it is there before it begins."""
    keys = whole()
    assert needs(keys, ["RS256"], T + R - DAY_S - 1, M) == []
    assert needs(keys, ["RS256"], T + R - DAY_S, M) == ["RS256"]
    later = whole(keys, T + R - DAY_S)
    assert roles(later, T + R - 1) == {"k1": "active", "k2": "next", "k3": "next"}
    assert roles(later, T + R) == {"k1": "retired", "k2": "active", "k3": "next"}
    assert later[0].gone_at == T + R + M.longest_token_s + M.linger_s
    assert later[2].signs_from == T + 2 * R


def test_a_service_that_was_off_makes_the_next_key_and_lets_verifiers_know_it() -> None:
    """Also when its time has long come."""
    keys = whole(whole(), T + 5 * R)
    assert roles(keys, T + 5 * R) == {"k1": "gone", "k2": "active", "k3": "next", "k4": "next"}
    assert keys[2].signs_from == T + 5 * R + M.lead_s
    assert violations(keys, T + 5 * R, M) == []


def test_a_clock_that_is_behind_signs_with_the_first_key() -> None:
    """A replica whose clock lags behind the one that made the ring still signs, because the key is published."""
    keys = whole()
    assert roles(keys, T - 3)["k1"] == "next"
    assert signer(keys, "RS256", T - 3) == keys[0]
    assert signer(keys, "ES256", T) is None


def test_a_clock_that_is_behind_makes_no_key_that_signs_unknown() -> None:
    """A replica whose clock lags finds that nobody signs yet; what it would make nobody has seen. It continues with
    the key that is published, and the ring stays as it is.
    """
    now = T + 5000
    fresh = whole()
    taken_away = whole(revoked(fresh, "k1", now, M), now)
    for keys, behind in ((fresh, T - 30), (taken_away, now - 30)):
        assert needs(keys, ["RS256"], behind, M) == []
        assert signer(keys, "RS256", behind) == signer(keys, "RS256", behind + 30)


def test_a_clock_that_was_ahead_for_a_while_leaves_a_key_that_can_sign() -> None:
    """What lost its private part while the clock was wrong does not sign when it is right again: the next one does."""
    ahead = T + R + DAY_S
    keys = whole(whole(whole(), T + R - DAY_S), ahead)
    keys = without_private_parts_of_gone(keys, ahead)
    signing = signer(keys, "RS256", T + 9)
    assert signing is not None and (signing.kid, signing.sealed is None) == ("k2", False)
    assert roles(keys, T + 9)["k1"] == "retired"  # published all the same, for what it has signed
    assert needs(keys, ["RS256"], T + 9, M) == []


def test_a_ring_is_straightened_after_a_clock_that_was_ahead() -> None:
    """Exactly one key is active, only by the times; a ring in order stays as it is."""
    ahead = T + R + DAY_S
    keys = without_private_parts_of_gone(whole(whole(whole(), T + R - DAY_S), ahead), ahead)
    now = T + 9
    keys = straightened(keys, now, M)
    assert roles(keys, now) == {"k1": "retired", "k2": "active", "k3": "next"}
    assert (keys[0].retires_at, keys[0].gone_at) == (now, now + M.longest_token_s + M.linger_s)
    assert straightened(keys, now + 5, M) == keys
    assert straightened(whole(), T + 9, M) == whole()


def test_a_ring_of_a_clock_ahead_is_rotated_as_soon_as_verifiers_know_its_keys() -> None:
    """A year ahead, then right: what is in the ring is published by now, so a rotation waits for caches and no longer."""
    now = T - 365 * DAY_S
    keys = straightened(whole(), now, M)
    assert max(each.published_at for each in keys) == now
    assert rotation_is_safe_at(keys, "RS256", now, M) == now + M.lead_s - M.learn_s
    waiting = next(each for each in keys if role(each, now) == "next")
    assert waiting.signs_from == now + R
    assert straightened(keys, now + 5, M) == keys
    assert straightened(whole(), T - 30, M)[0].published_at == T  # a skew is no reason
    assert roles(rotated(keys, "RS256", now + M.lead_s, M), now + M.lead_s + M.learn_s)["k2"] == "active"


def test_a_ring_that_was_made_by_a_clock_ahead_can_be_changed() -> None:
    """The clock is right again: the key that still signs can be revoked, and another one is next."""
    keys, now = whole(now=T + R), T
    assert signer(keys, "RS256", now) == keys[0]
    keys = whole(revoked(keys, "k1", now, M), now)
    assert roles(keys, now) == {"k1": "gone", "k2": "active", "k3": "next"}
    with pytest.raises(UnsafeStep):  # k3 was published just now
        rotated(keys, "RS256", now + 1, M)
    assert rotated(keys, "RS256", now + M.lead_s, M)


# --- rotations by hand ---


def test_an_unsafe_rotation_is_refused_and_says_when_it_is_safe() -> None:
    """Published before signing ≥ JWKS max-age + 300 s."""
    keys = whole()
    with pytest.raises(UnsafeStep) as caught:
        rotated(keys, "RS256", T, M)
    safe_at = caught.value.safe_at
    assert safe_at == T + M.lead_s - M.learn_s == rotation_is_safe_at(keys, "RS256", T, M)
    with pytest.raises(UnsafeStep):
        rotated(keys, "RS256", safe_at - 1, M)
    assert violations(whole(rotated(keys, "RS256", safe_at, M), safe_at), safe_at, M) == []


def test_a_rotation_begins_when_every_worker_knows_of_it() -> None:
    """A worker learns of it within 60 s; until then all continue with the old key."""
    now = T + 1000
    keys = whole(rotated(whole(), "RS256", now, M), now)
    assert roles(keys, now + 59) == {"k1": "active", "k2": "next", "k3": "next"}
    assert roles(keys, now + 60) == {"k1": "retired", "k2": "active", "k3": "next"}
    assert keys[0].gone_at == now + 60 + M.longest_token_s + M.linger_s


def test_a_second_rotation_waits_for_the_first() -> None:
    """A rotation under way is not a rotation more; and the key after it is too new."""
    now = T + 1000
    keys = whole(rotated(whole(), "RS256", now, M), now)
    with pytest.raises(UnsafeStep, match="under way") as caught:
        rotated(keys, "RS256", now + 1, M)
    assert caught.value.safe_at is not None and caught.value.safe_at >= now + M.lead_s
    with pytest.raises(UnsafeStep, match="without the next key"):
        rotated(keys, "RS256", now + 61, M)


def test_nothing_waits_for_an_algorithm_that_is_not_kept() -> None:
    """Nothing is rotated that is not there."""
    with pytest.raises(NoSuchKey):
        rotated(whole(), "ES256", T + 1000, M)


def test_by_hand_nothing_happens_by_itself() -> None:
    """0 = by hand."""
    keys = whole(margins=BY_HAND)
    assert turns_at(keys, T) is None
    assert needs(keys, ["RS256"], T + 10**9, BY_HAND) == []
    now = T + 5000
    keys = whole(rotated(keys, "RS256", now, BY_HAND), now, BY_HAND)
    assert roles(keys, now + 60) == {"k1": "retired", "k2": "active", "k3": "next"}
    assert keys[2].signs_from is None


# --- taking a key away ---


def test_a_revoked_active_key_is_followed_at_once_by_one_that_was_published() -> None:
    """Even an emergency rotation signs with a key that verifiers can know."""
    now = T + 2000
    keys = whole(revoked(whole(), "k1", now, M), now)
    assert roles(keys, now) == {"k1": "gone", "k2": "active", "k3": "next"}
    assert keys[0].sealed is None
    assert violations(keys, now, M) == []
    assert keys[2].signs_from == now + R


def test_two_revocations_in_one_second_leave_one_that_signs() -> None:
    """Even then; the key that signs is new."""
    keys = whole(revoked(whole(), "k1", T, M))
    keys = whole(revoked(keys, "k2", T, M))
    assert roles(keys, T) == {"k1": "gone", "k2": "gone", "k3": "active", "k4": "next"}


def test_a_revoked_next_key_is_replaced_and_the_active_one_signs_on_until_it_is_known() -> None:
    """There always is a next one, and it is published before it signs."""
    now = T + R - 100
    keys = whole(revoked(whole(whole(), T + R - DAY_S), "k2", now, M), now)
    assert violations(keys, now, M) == []
    assert role(keys[0], T + R + 1) == "active"


def test_a_revoked_retired_key_is_gone() -> None:
    """`revoke` takes a key out of our JWKS."""
    now = T + 1000
    keys = whole(rotated(whole(), "RS256", now, M), now)
    keys = revoked(keys, "k1", now + 100, M)
    assert roles(keys, now + 100) == {"k1": "gone", "k2": "active", "k3": "next"}


@each_of("kid", ["k9", "k1"])
def test_what_is_not_published_cannot_be_revoked(kid: str) -> None:
    """An unknown kid, and one that is gone."""
    keys = revoked(whole(), "k1", T, M)
    with pytest.raises(NoSuchKey):
        revoked(keys, kid, T, M)


# --- importing ---


def test_the_first_imported_key_signs_on() -> None:
    """Moving to the ring keeps the old kid published, without an outage."""
    keys = whole(imported((), key("old"), T, M))
    assert roles(keys, T) == {"old": "active", "k2": "next"}
    assert violations(keys, T, M) == []


def test_another_imported_key_verifies_what_it_has_signed() -> None:
    """Where one signs already, it is published for as long as its tokens may live."""
    keys = imported(whole(), key("old"), T + 5, M)
    assert roles(keys, T + 5)["old"] == "retired"
    assert keys[-1].gone_at == T + 5 + M.longest_token_s + M.linger_s
    assert violations(keys, T + 5, M) == []


def test_an_imported_key_of_an_algorithm_that_is_not_kept_only_verifies() -> None:
    """Nothing would ever follow it."""
    keys = imported(whole(algs=("ES256",)), key("old"), T, M, kept=False)
    assert roles(keys, T)["old"] == "retired"
    assert roles(keys, T + M.longest_token_s + M.linger_s)["old"] == "gone"


@each_of("margins", [M, BY_HAND])
def test_an_imported_key_may_be_the_next(margins: Margins) -> None:
    """Moving back: the only key that will stay signs before the one that waits."""
    keys = imported(whole(margins=margins), key("mine"), T + 9, margins, as_next=True)
    assert with_role(keys, "RS256", "next", T + 9)[0].kid == "mine"
    assert violations(keys, T + 9, margins) == []
    now = T + 9 + margins.lead_s
    keys = whole(rotated(keys, "RS256", now, margins), now, margins)
    assert role(next(each for each in keys if each.kid == "mine"), now + 60) == "active"
    assert violations(keys, now + 60, margins) == []


def test_a_kid_is_taken_once() -> None:
    """RFC 7517 §9.2: kids are unique."""
    with pytest.raises(UnsafeStep, match="is taken"):
        imported(whole(), key("k1", "ES256"), T, M)


def test_the_line_does_not_change_in_the_middle_of_a_rotation() -> None:
    """Workers that have not read it would sign by another key."""
    now = T + 1000
    keys = rotated(whole(), "RS256", now, M)
    with pytest.raises(UnsafeStep, match="under way"):
        imported(keys, key("mine"), now, M, as_next=True)


# --- settings that change ---


def test_another_rotation_length_moves_what_is_to_come() -> None:
    """`PYLON_OIDC_KEY_ROTATION_DAYS`, also shorter than the key is old; nothing signs unknown."""
    now = T + 40 * DAY_S
    shorter = replace(M, rotation_s=30 * DAY_S)
    keys = whole(rescheduled(whole(), now, shorter), now, shorter)
    assert keys[1].signs_from == now + M.learn_s
    assert violations(keys, now, shorter) == []
    longer = replace(M, rotation_s=120 * DAY_S)
    assert rescheduled(whole(), now, longer)[1].signs_from == T + 120 * DAY_S
    assert rescheduled(whole(), now, BY_HAND)[1].signs_from is None
    assert rescheduled(whole(margins=BY_HAND), now, M)[1].signs_from == T + R


def test_what_is_about_to_happen_stays() -> None:
    """A worker that has not read the change would sign by another key."""
    now = T + R - 30
    keys = whole(whole(), now)
    assert rescheduled(keys, now, replace(M, rotation_s=200 * DAY_S)) == keys


def test_longer_tokens_keep_their_key_longer_and_shorter_ones_change_nothing() -> None:
    """Published after signing ≥ the longest token lifetime + 300 s."""
    longer = replace(M, longest_token_s=86_400)
    keys = kept_long_enough(whole(), T, longer)
    assert keys[0].gone_at == T + R + 86_400 + M.linger_s
    assert violations(keys, T, longer) == []
    assert kept_long_enough(keys, T, M) == keys
    now = T + 1000  # a replica with the old setting rotates: what the other one said still holds
    assert rotated(keys, "RS256", now, M)[0].gone_at == now + M.learn_s + 86_400 + M.linger_s


def test_what_is_gone_loses_its_private_part() -> None:
    """What will never sign again cannot."""
    keys = whole(whole(), T + R)
    later = T + R + M.longest_token_s + M.linger_s
    assert [each.sealed is None for each in without_private_parts_of_gone(keys, later - 1)] == [False] * 3
    assert [each.sealed is None for each in without_private_parts_of_gone(keys, later)] == [
        True,
        False,
        False,
    ]


# --- the timeline ---


def test_the_timeline_names_every_change_with_its_reason() -> None:
    """`keys plan`: each change with its time and the reason why it is safe."""
    changes = coming(whole(), T, M)
    assert [(change.what, change.kid) for change in changes] == [
        ("is made", None),
        ("retires", "k1"),
        ("signs", "k2"),
        ("goes", "k1"),
    ]
    assert [change.at for change in changes] == sorted(change.at for change in changes)
    assert all(change.reason for change in changes)
    assert "published 90 days before" in changes[2].reason


def test_the_next_change_is_told() -> None:
    """JWKS `Cache-Control` never promises longer than the next change allows."""
    keys = whole(whole(), T + R)
    assert turns_at(whole(margins=BY_HAND), T) is None
    assert turns_at(keys, T + R) == T + R + M.longest_token_s + M.linger_s


def test_a_rotation_that_did_not_come_is_overdue() -> None:
    """A warning when rotation is overdue."""
    stuck = tuple(replace(each, retires_at=None) for each in whole()[:1])
    assert overdue(stuck, ["RS256"], T + R, M) == []
    assert overdue(stuck, ["RS256"], T + R + M.lead_s + 1, M) == list(stuck)
    assert overdue(stuck, ["ES256"], T + R + M.lead_s + 1, M) == []
    assert overdue(whole(margins=BY_HAND), ["RS256"], T + 365 * DAY_S, BY_HAND) == []
    assert len(overdue(whole(margins=BY_HAND), ["RS256"], T + 366 * DAY_S, BY_HAND)) == 1


def test_the_defaults_are_those_of_the_docs() -> None:
    """Max-age 300 s at most; before ≥ max-age + 300 s; after ≥ the longest lifetime + 300 s; 90 days; 60 s."""
    assert M.max_age_s <= 300
    assert M.lead_s >= M.max_age_s + 300
    assert M.linger_s >= 300
    assert (M.rotation_s, M.learn_s) == (90 * DAY_S, 60)


# --- whether the check finds anything ---

BROKEN: dict[str, tuple[KeyRecords, str]] = {
    "two sign": ((key("a", signs_from=T), key("b", signs_from=T), key("c")), "2 keys are active"),
    "none signs": ((key("a"), key("b")), "0 keys are active"),
    "no next": ((key("a", signs_from=T),), "no key is next"),
    "a kid twice": ((key("a", signs_from=T), key("a")), "twice"),
    "signs unknown": (
        (
            key("a", signs_from=T - R, published_at=T - R, retires_at=T, gone_at=T + 9999),
            key("b", signs_from=T),
            key("c"),
        ),
        "before verifiers know it",
    ),
    "goes too soon": (
        (
            key("a", signs_from=T - R, published_at=T - R, retires_at=T + 900, gone_at=T + 1800),
            key("b", signs_from=T + 900),
        ),
        "before its tokens have ended",
    ),
    "lost": ((replace(key("a", signs_from=T), sealed=None), key("b")), "private part"),
}


@each_of(("keys", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_ring_is_found(keys: KeyRecords, told: str) -> None:
    """Every check has a refusing test."""
    assert any(told in violation for violation in violations(keys, T, M)), violations(keys, T, M)


# --- any sequence of events ---

ALGS = ("RS256", "Ed25519")


class AnyHistory(RuleBasedStateMachine):
    """A ring through whatever may happen to it, seen by replicas that read it every minute, and by verifiers.

    A worker signs with what it has read up to `learn_s` ago. A verifier uses a key set up to twice `max_age_s`
    old: a cache before it may have kept the set for as long as it does itself.
    """

    margins = Margins(rotation_s=3 * DAY_S)

    def __init__(self) -> None:
        super().__init__()
        self.now = T
        self.keys: KeyRecords = ()
        self.made = 0
        #: What replicas have read, and when.
        self.views: list[tuple[int, KeyRecords]] = []
        #: The published kids at each moment that something could change.
        self.sets: list[tuple[int, frozenset[str]]] = []
        #: Tokens: kid, and when they end.
        self.tokens: list[tuple[str, int]] = []
        #: Keys whose tokens may be refused, as the command said: taken away, or taking over from one.
        self.exempt: set[str] = set()

    def new_key(self, alg: str) -> KeyRecord:
        """A key that nobody has."""
        self.made += 1
        return key(f"k{self.made}", alg)

    def write(self, keys: KeyRecords) -> None:
        """A change, completed as every writer does."""
        while missing := needs(keys, ALGS, self.now, self.margins):
            new = self.new_key(missing[0])
            if not with_role(keys, missing[0], "active", self.now):
                self.exempt.add(new.kid)  # an algorithm's first key
            keys = added(keys, new, self.now, self.margins)
        self.keys = without_private_parts_of_gone(kept_long_enough(keys, self.now, self.margins), self.now)

    @initialize()
    def begin(self) -> None:
        """A fresh database, and two replicas."""
        self.write(())
        self.views = [(self.now, self.keys)] * 2
        self.look()

    def look(self) -> None:
        """What a client sees now."""
        self.sets.append((self.now, frozenset(each.kid for each in published(self.keys, self.now))))
        self.sets = [each for each in self.sets if each[0] >= self.now - 2 * DAY_S]
        self.tokens = [each for each in self.tokens if each[1] > self.now]
        for _, view in self.views:
            for alg in ALGS:
                signing = signer(view, alg, self.now)
                assert signing is not None
                self.tokens.append((signing.kid, self.now + self.margins.longest_token_s))
        self.verify()

    def verify(self) -> None:
        """Every token that lives is verified by every key set that a verifier may have."""
        oldest = self.now - 2 * self.margins.max_age_s
        held = [kids for at, kids in self.sets if at >= oldest]
        before = [kids for at, kids in self.sets if at < oldest]
        for kids in [*before[-1:], *held]:
            for kid, _ in self.tokens:
                assert kid in kids or kid in self.exempt, (kid, self.now)

    @rule(seconds=st.integers(1, 10 * DAY_S))
    def time_passes(self, seconds: int) -> None:
        """Workers look, and make what is due."""
        end = self.now + seconds
        while self.now < end:
            moments = [turns_at(self.keys, self.now) or end, self.now + self.margins.made_before_s // 2, end]
            self.now = min(moments)
            if needs(self.keys, ALGS, self.now, self.margins):
                self.write(self.keys)
            self.views = [(self.now, self.keys)] * len(self.views)
            self.look()

    @rule(seconds=st.integers(1, 59), which=st.integers(0, 1))
    def one_replica_lags_behind(self, seconds: int, which: int) -> None:
        """It has not read for as long as it may."""
        self.now += seconds
        self.views = [
            view if index == which and self.now - view[0] < self.margins.learn_s else (self.now, self.keys)
            for index, view in enumerate(self.views)
        ]
        self.look()

    @rule(seconds=st.integers(1, 10 * DAY_S))
    def everything_is_off(self, seconds: int) -> None:
        """Nobody looks, nobody makes anything; then all start."""
        self.now += seconds
        for alg in ALGS:
            assert len(with_role(self.keys, alg, "active", self.now)) == 1
        self.write(self.keys)
        self.views = [(self.now, self.keys)] * 2
        self.look()

    @rule(alg=st.sampled_from(ALGS))
    def an_operator_rotates(self, alg: str) -> None:
        """Refused while it is unsafe; then the time that it said is right."""
        try:
            self.write(rotated(self.keys, alg, self.now, self.margins))
        except UnsafeStep as step:
            assert step.safe_at is not None and step.safe_at > self.now
        self.look()

    @rule(data=st.data())
    def an_operator_revokes(self, data: st.DataObject) -> None:
        """Whatever is published; the command lists those whose tokens may be refused."""
        chosen = data.draw(st.sampled_from(published(self.keys, self.now)))
        was = role(chosen, self.now)
        self.exempt.add(chosen.kid)
        if was == "active":
            self.exempt |= {each.kid for each in with_role(self.keys, chosen.alg, "next", self.now)[:1]}
        self.write(revoked(self.keys, chosen.kid, self.now, self.margins))
        self.look()

    @rule(alg=st.sampled_from(ALGS), as_next=st.booleans())
    def an_operator_imports(self, alg: str, as_next: bool) -> None:
        """A key from elsewhere."""
        try:
            self.write(imported(self.keys, self.new_key(alg), self.now, self.margins, as_next=as_next))
        except UnsafeStep as step:
            assert "under way" in str(step)
        self.look()

    @rule(days=st.integers(0, 9))
    def a_start_with_another_length(self, days: int) -> None:
        """The setting is another at a restart."""
        self.margins = replace(self.margins, rotation_s=days * DAY_S)
        self.write(rescheduled(self.keys, self.now, self.margins))
        self.look()

    @rule(longest_s=st.integers(60, 86_400))
    def a_start_with_longer_tokens(self, longest_s: int) -> None:
        """The lifetime is another at a restart; never shorter here, for tokens that live were longer."""
        self.margins = replace(self.margins, longest_token_s=max(longest_s, self.margins.longest_token_s))
        self.write(self.keys)

    @rule(alg=st.sampled_from(ALGS))
    def a_writer_is_killed(self, alg: str) -> None:
        """What was computed and not written has not happened."""
        before = self.keys
        self.write(
            revoked(self.keys, with_role(self.keys, alg, "active", self.now)[0].kid, self.now, self.margins)
        )
        self.keys = before

    @invariant()
    def the_ring_is_sound(self) -> None:
        """docs/keys.md, always."""
        if self.keys:
            assert violations(self.keys, self.now, self.margins) == []


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase


HASTY = settings(max_examples=300, deadline=None, database=None, phases=[Phase.generate])


class AnyClock(RuleBasedStateMachine):
    """A ring whose clock goes forth and back, as that of a machine does that was started with a wrong one."""

    margins = Margins(rotation_s=3 * DAY_S)

    def __init__(self) -> None:
        super().__init__()
        self.now = T
        self.known: set[str] = set()
        self.keys = self.complete(())

    def complete(self, keys: KeyRecords) -> KeyRecords:
        """As every writer does; a new one may not sign, except where nothing could."""
        nothing_can = signer(keys, "RS256", self.now) is None
        keys = straightened(keys, self.now, self.margins)
        while missing := needs(keys, ("RS256",), self.now, self.margins):
            keys = added(keys, key(f"k{len(keys) + 1}", missing[0]), self.now, self.margins)
        assert len(with_role(keys, "RS256", "active", self.now)) == 1
        assert with_role(keys, "RS256", "next", self.now)
        signing = signer(keys, "RS256", self.now)
        assert signing is not None and signing.sealed is not None
        assert signing in published(keys, self.now)
        assert nothing_can or signing.kid in self.known
        self.known = {each.kid for each in keys}
        return without_private_parts_of_gone(keys, self.now)

    @rule(seconds=st.integers(-20 * DAY_S, 20 * DAY_S) | st.integers(-90, 90))
    def the_clock_jumps(self, seconds: int) -> None:
        """Forth or back."""
        self.now += seconds
        self.keys = self.complete(self.keys)

    @rule()
    def an_operator_rotates(self) -> None:
        """Or has to wait."""
        with contextlib.suppress(UnsafeStep):
            self.keys = self.complete(rotated(self.keys, "RS256", self.now, self.margins))

    @rule(data=st.data())
    def an_operator_revokes(self, data: st.DataObject) -> None:
        """Whatever is published."""
        chosen = data.draw(st.sampled_from(published(self.keys, self.now)))
        self.keys = self.complete(revoked(self.keys, chosen.kid, self.now, self.margins))


AnyClock.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyClock = AnyClock.TestCase


class HastyHistory(AnyHistory):
    """The same, where a key may sign as soon as it is made."""

    margins = Margins(rotation_s=3 * DAY_S, lead_s=0)


class CurtHistory(AnyHistory):
    """The same, where a key goes when it has signed."""

    margins = Margins(rotation_s=3 * DAY_S, linger_s=-3600)


@pytest.mark.parametrize("history", [HastyHistory, CurtHistory])
def test_without_margins_some_verifier_meets_an_unknown_key(history: type[AnyHistory]) -> None:
    """The history above can fail: cut the time before or after signing to nothing, and it does."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(history, settings=HASTY)
