"""What every server of the tests has in common: it ends with its `with` block, and by its own process id."""

from __future__ import annotations

import signal
import subprocess
from typing import Any, Self


class Stoppable:
    """Stops at the end of a `with` block."""

    def stop(self) -> object:
        """End it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def end_process(
    process: subprocess.Popen[Any], within_s: float, how: signal.Signals = signal.SIGTERM
) -> bool:
    """End a process, unless it has ended.

    Args:
        process: Which.
        within_s: Seconds that it has for an end of its own; then it is killed.
        how: The signal that it gets.

    Returns:
        Whether it ended by itself.
    """
    if process.poll() is not None:
        return True
    process.send_signal(how)
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True
