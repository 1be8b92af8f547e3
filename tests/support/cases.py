"""Cases that one fault fails together are one test: a subtest a case.

`each_of` is written like `pytest.mark.parametrize`, and may stand over another one of them. Its cases share what the test
asks for, so it is for cases that leave nothing behind. What the test asks for and can `forget` does so between two cases.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

Test = Callable[..., None]


def each_of(
    names: str | Sequence[str],
    values: Iterable[Any],
    *,
    ids: Iterable[str | None] | Callable[[Any], object] | None = None,
) -> Callable[[Test], Test]:
    """Run the test once for each of the values, all of them, whichever fails."""
    words = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    cases = [_case(value, single=len(words) == 1) for value in values]
    assert cases, "there is no case"
    given = ids if ids is None or callable(ids) else list(ids)

    def wrap(test: Test) -> Test:
        own = inspect.signature(test).parameters
        wants_subtests = "subtests" in own

        @functools.wraps(test)
        def run(subtests: pytest.Subtests, **asked: Any) -> None:
            for number, (case, name) in enumerate(cases):
                if number:
                    _forget(asked.values())
                with subtests.test(msg=name or _name(given, number, case)):
                    more = {"subtests": subtests} if wants_subtests else {}
                    test(**asked, **more, **dict(zip(words, case, strict=True)))

        kept = [own[name] for name in own if name not in {*words, "subtests"}]
        fixture = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)
        keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in kept]
        run.__signature__ = inspect.Signature([fixture, *keyword])  # type: ignore[attr-defined]
        return run

    return wrap


def _forget(shared: Iterable[object]) -> None:
    for each in shared:
        forget = getattr(each, "forget", None)
        if callable(forget):
            forget()


def _case(value: Any, *, single: bool) -> tuple[tuple[Any, ...], str | None]:
    if isinstance(value, ParameterSet):
        assert not value.marks, "a case with a mark is a test of its own"
        return tuple(value.values), None if value.id is None else str(value.id)
    return ((value,) if single else tuple(value)), None


def _name(
    ids: Sequence[str | None] | Callable[[Any], object] | None, number: int, case: tuple[Any, ...]
) -> str:
    if callable(ids):
        return "-".join(str(ids(value)) for value in case)
    if ids is not None and (name := ids[number]) is not None:
        return name
    return "-".join(repr(value)[:60] for value in case)
