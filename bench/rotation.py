"""What a rotation costs the requests: latency of mints before, during and after one, on the real clock.

gunicorn with two workers on SQLite, minting RS256 by a managed ring. The window "during" begins with the rotation: the
next key is made, every worker reads of it, and changes over within the window.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import machine, report, servers, wrk
from service.keys.rotation import rotated
from service.keys.sealing import SealingKeys
from service.keys.store import RingStore
from tests.flows.polling import wait_until
from tests.flows.rotating import MARGINS
from tests.storage.stores import open_url
from tests.support.gunicorn import ADMIN, Gunicorn

SECONDS = float(os.environ.get("BENCH_SECONDS") or 4)
ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
WINDOWS = ("before", "during", "after")
_CONNECTIONS = 4
_SEALING = bytes(range(32))
_SEALING_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def main() -> int:
    """Measure, print, and write the report.

    Returns:
        0, or 1 when a mint failed.
    """
    wrk.check_installed()
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="pylon-b-") as folder:
        rounds = _measure(Path(folder))
    text = f"# A rotation under load\n\n{report.about(described)}\n\n{_table(rounds)}\n"
    print(text)
    written = report.write("rotation", described, {"rounds": [_plain(each) for each in rounds]}, text)
    print(f"Written: {written}")
    return 1 if any(load.errors for each in rounds for load in each.values()) else 0


def _measure(folder: Path) -> list[dict[str, wrk.Load]]:
    settings: dict[str, Any] = {
        "PYLON_DATA_DIR": str(folder),
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_OIDC_ISSUER": servers.ISSUER,
        "PYLON_OIDC_KEYS": "managed",
        "PYLON_KEY_ENCRYPTION_KEY": _SEALING_TEXT,
        "PYLON_JWT_ALG": "RS256",
    }
    with Gunicorn(app="tests.flows.rotating:make()", **settings) as server:
        store = open_url(f"sqlite:///{folder / 'pylon.db'}")
        rings = RingStore(store, SealingKeys((_SEALING,)))
        tokens = servers.sign_in(server, folder / "tokens.txt")
        target = servers.mint(server, tokens)
        wrk.run(target, 1, _CONNECTIONS)
        try:
            return [_round(target, rings) for _ in range(ROUNDS)]
        finally:
            store.close()


def _round(target: wrk.Target, rings: RingStore) -> dict[str, wrk.Load]:
    loads = {"before": wrk.run(target, SECONDS, _CONNECTIONS)}
    _wait_until_safe(rings)
    rotation = threading.Timer(min(1.0, SECONDS / 4), _rotate, [rings])
    rotation.start()
    loads["during"] = wrk.run(target, SECONDS, _CONNECTIONS)
    rotation.join()
    loads["after"] = wrk.run(target, SECONDS, _CONNECTIONS)
    return loads


def _wait_until_safe(rings: RingStore) -> None:
    def safe() -> bool:
        now = int(time.time())
        ring = rings.load(now=now)
        assert ring is not None
        waiting = [key for key in ring.keys if key.signs_from is None or key.signs_from > now]
        return all(now >= key.published_at + MARGINS.lead_s - MARGINS.learn_s for key in waiting)

    wait_until(safe, 20)


def _rotate(rings: RingStore) -> None:
    now = int(time.time())
    rings.ensure(MARGINS, now=now, step=lambda ring: rotated(ring.keys, "RS256", now, MARGINS))


def _plain(loads: dict[str, wrk.Load]) -> dict[str, Any]:
    return {window: asdict(load) for window, load in loads.items()}


def _table(rounds: list[dict[str, wrk.Load]]) -> str:
    rows = [
        [
            f"{number} {window}",
            report.number(each[window].rate),
            report.number(each[window].p50_ms, 2),
            report.number(each[window].p99_ms, 2),
            report.number(each[window].max_ms, 2),
            report.number(each[window].errors),
        ]
        for number, each in enumerate(rounds, 1)
        for window in WINDOWS
    ]
    return report.table(["round, window", "mints a second", "p50 ms", "p99 ms", "slowest ms", "errors"], rows)
