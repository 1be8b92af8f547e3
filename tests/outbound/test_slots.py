"""How many requests of a process wait for other people's hosts."""

from __future__ import annotations

import contextlib

from service.outbound.slots import Slots


def _take(slots: Slots, stack: contextlib.ExitStack, host: str | None) -> bool:
    return stack.enter_context(slots.for_operator(waits=False) if host is None else slots.for_stranger(host))


def test_four_of_strangers_and_one_of_a_host() -> None:
    """decision 0023: the fifth stranger's host waits for nobody, nor does the second request of one; slots come back."""
    slots = Slots()
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            took = [_take(slots, stack, host) for host in ("a", "a", "b", "c", "d", "e")]
            assert took == [True, False, True, True, True, False]
            # The operator's clients have their own.
            assert [_take(slots, stack, None) for _ in range(4)] == [True, True, True, False]
