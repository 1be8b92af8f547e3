"""How the processes of this service sign for each audience, and since when: one record that each start updates.

It shows when the last token of an algorithm was issued, and no request writes anything for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from service.handles import hash_handle
from service.storage.interface import NEVER, Kind, Record, Store

#: The longest duration of a rollout, in s: a later start replaces no process that ran with other settings.
ROLLOUT_S: Final = 86_400
_ID: Final = hash_handle("algorithms by which audiences are signed")
_MOST_RUNS: Final = 50


@dataclass(frozen=True, slots=True)
class Run:
    """How processes signed for one audience, until the next run.

    Attributes:
        alg, to, percent: as in the policy; `to` is None without a migration.
        signs: the algorithms that tokens were signed with.
        lifetime_s: the longest lifetime of a token, in s.
        since: when the first of them started, Unix s.
        latest: when the last of them started within the rollout, Unix s.
    """

    alg: str
    to: str | None
    percent: int
    signs: tuple[str, ...]
    lifetime_s: int
    since: int
    latest: int

    def is_like(self, other: Run) -> bool:
        """Whether both sign in the same way."""
        return replace(self, since=0, latest=0) == replace(other, since=0, latest=0)


Runs = tuple[Run, ...]


class Starts:
    """The record of all starts.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, starting: Mapping[str, Run], *, now: int) -> Mapping[str, Runs]:
        """Record a start. Returns the runs of each audience; the last one is the run that starts.

        Args:
            starting: audience -> the run that starts now.
            now: Unix s.
        """

        def with_this_one(record: Record) -> Record | None:
            known = _runs_of(record)
            coming = known | {name: _added(known.get(name, ()), run) for name, run in starting.items()}
            return None if coming == known else replace(record, body=_body(coming))

        new = Record(Kind.REPLAY_MARKER, _ID, NEVER)
        changed = self._store.change(Kind.REPLAY_MARKER, _ID, with_this_one, new=new, now=now)
        return self.read(now=now) if changed is None else _runs_of(changed)

    def read(self, *, now: int) -> Mapping[str, Runs]:
        """Audience -> its runs, the oldest first. One statement."""
        record = self._store.get(Kind.REPLAY_MARKER, _ID, now=now)
        return {} if record is None else _runs_of(record)


def _added(runs: Runs, run: Run) -> Runs:
    if not runs or not runs[-1].is_like(run):
        return (*runs, run)[-_MOST_RUNS:]
    last = runs[-1]
    if last.latest < run.since <= last.since + ROLLOUT_S:
        return (*runs[:-1], replace(last, latest=run.since))
    return runs


def _body(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    return {
        name: [asdict(run) | {"signs": list(run.signs)} for run in of_one] for name, of_one in runs.items()
    }


def _runs_of(record: Record) -> dict[str, Runs]:
    return {
        name: tuple(Run(**(run | {"signs": tuple(run["signs"])})) for run in of_one)
        for name, of_one in record.body.items()
    }
