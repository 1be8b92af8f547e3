"""An application that tells whether its worker looks for garbage, and which worker that is."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from typing import Any


def app(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer anything."""
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {gc.isenabled()}".encode()]
