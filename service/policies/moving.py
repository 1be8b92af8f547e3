"""How far an audience has moved from one algorithm to another, which old tokens still live, and the next safe step.

Pure: the known starts, the policy and the time are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from service.policies.values import Policies, Policy
from service.records.starts import Run, Runs

#: How long a process may continue, in s, after its replacement has started.
LEAVES_WITHIN_S: Final = 60
#: The first value of `percent` after 0.
FIRST_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class LastToken:
    """The last token that an algorithm signed, at the latest.

    Attributes:
        alg: the algorithm.
        given_at, ends_at: Unix s.
    """

    alg: str
    given_at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of an audience.

    Attributes:
        policy: the policy in the file.
        last: the last token of an algorithm that no longer signs; None if there is none.
        step: what to do next, in words.
        safe_at: from when on that is safe, Unix s; None if the step has to wait for nothing that is known here.
    """

    policy: Policy
    last: LastToken | None
    step: str
    safe_at: int | None = None


def run_of(policy: Policy, now: int) -> Run:
    """How a process signs that starts now."""
    to, percent = (None, 0) if policy.migrate is None else (policy.migrate.to, policy.migrate.percent)
    return Run(policy.alg, to, percent, policy.signing_algs, policy.lifetime_s, now, now)


def last_tokens(runs: Runs) -> dict[str, LastToken]:
    """The last token of each algorithm that no longer signs. Nothing is known about the time before the first run."""
    if not runs:
        return {}
    first = runs[0]
    before = replace(first, signs=(first.alg, *([first.to] if first.to else [])))
    last: dict[str, LastToken] = {}
    for run, successor in zip((before, *runs), runs, strict=False):
        given_at = successor.latest + LEAVES_WITHIN_S
        for alg in run.signs:
            ends_at = max(given_at + run.lifetime_s, last[alg].ends_at if alg in last else 0)
            last[alg] = LastToken(alg, given_at, ends_at)
    return {alg: token for alg, token in last.items() if alg not in runs[-1].signs}


def with_left(policies: Policies, runs: Mapping[str, Runs], *, now: int) -> Policies:
    """The policies, each with the algorithms that may have signed tokens that still live."""
    tables = dict(policies.tables)
    for audience, policy in policies.tables.items():
        last = last_tokens(runs.get(audience or "", ())).values()
        left = {token.alg: token.ends_at for token in last if token.ends_at > now}
        if left := {alg: ends_at for alg, ends_at in left.items() if alg not in policy.algs}:
            tables[audience] = replace(policy, left=left)
    return replace(policies, tables=tables)


def progress(policy: Policy, runs: Runs, *, now: int, lead_s: int, better: str | None) -> Progress:
    """The progress of an audience.

    Args:
        policy: the policy in the file.
        runs: the known starts.
        now: Unix s.
        lead_s: how long it takes until every verifier knows a new key, in s.
        better: an algorithm with a key, to replace HS256.
    """
    if not runs or not runs[-1].is_like(run_of(policy, now)):
        return Progress(policy, None, "restart every process: the last one started with other settings")
    run, move, last = runs[-1], policy.migrate, last_tokens(runs)
    newest = max(last.values(), key=lambda token: token.ends_at, default=None)
    if move is None:
        return _at_rest(policy, newest, now=now, better=better)
    if 0 < move.percent < 100:
        step = f"write percent = 100, when no verifier has refused a token that {move.to} signed; percent = 0 goes back"
        return Progress(policy, None, step, run.latest)
    if move.percent == 100:
        step = f'write alg = "{move.to}", and leave migrate out; percent = 0 goes back'
        return _waiting(policy, last.get(policy.alg), step, now=now)
    old_or_none = last.get(move.to)
    if old_or_none is not None and now < old_or_none.ends_at and _went_back(runs, move.to):
        return _waiting(policy, old_or_none, f"leave migrate out, to stay with {policy.alg}", now=now)
    step = f"write percent = {FIRST_SHARE}, when every verifier takes {move.to} as well as {policy.alg}"
    return Progress(policy, None, step, run.latest + lead_s)


def _went_back(runs: Runs, alg: str) -> bool:
    return any(alg in run.signs for run in runs)


def _at_rest(policy: Policy, last: LastToken | None, *, now: int, better: str | None) -> Progress:
    if last is not None and now < last.ends_at:
        return _waiting(policy, last, "nothing is left to do", now=now)
    if policy.alg != "HS256":
        step = "nothing is left to do; no verifier needs the secret" if last else "nothing to do"
        return Progress(policy, last, step)
    if better is None:
        return Progress(policy, last, "set PYLON_OIDC_KEYS=managed and PYLON_OIDC_ALGS=RS256,ES256")
    return Progress(policy, last, f'write migrate = {{to = "{better}", percent = 0}}')


def _waiting(policy: Policy, last: LastToken | None, step: str, *, now: int) -> Progress:
    """A step that is safe once the last token has expired."""
    if last is None or now >= last.ends_at:
        return Progress(policy, last, step, None if last is None else last.ends_at)
    return Progress(
        policy, last, f"wait until the last token that {last.alg} signed has ended, then {step}", last.ends_at
    )
