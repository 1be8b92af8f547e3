"""How much slower this machine is now, because others use its processors too."""

from __future__ import annotations

import time
from typing import Final

#: The processor time of the work that is measured.
_WORK_S: Final = 0.06
#: A machine that is even busier can test nothing.
_MOST: Final = 10.0


def in_time(took_s: float, limit_s: float) -> bool:
    """Whether something took less than the limit, which is for a machine with a free processor.

    If it took longer, the limit counts in processor time: it becomes as much longer as work takes longer now because the
    processors are shared.
    """
    return took_s < limit_s or took_s < limit_s * _slowness()


def _slowness() -> float:
    """How often as long as with a processor of its own a piece of work takes now, from 1 to `_MOST`."""
    began, used = time.perf_counter(), time.thread_time()
    while time.thread_time() - used < _WORK_S:
        pass
    return min(_MOST, max(1.0, (time.perf_counter() - began) / _WORK_S))
