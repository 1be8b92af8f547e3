"""Status lists with a million sessions: how large a list is, and what it costs to make and to send one."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from statistics import median

from bench import machine, servers
from bench.in_process import ask, environ
from bench.report import about, number, table

#: 16 lists of 65,536 places.
_LISTS = 16
_SHARES = (0.0, 0.001, 0.01, 0.1, 0.5)
_AT_ONCE = 5000


def main() -> int:
    """Print a row for each share of places whose session or grant has ended.

    Returns:
        The exit code.
    """
    described = machine.describe()
    rows = [_measured(share) for share in _SHARES]
    head = ["ended", "bits", "list, bytes", "made, CPU ms", "sent again, CPU µs"]
    print(f"# Status lists, {_LISTS * 65_536:,} places\n\n{about(described)}\n\n{table(head, rows)}")
    return 0


def _measured(share: float) -> list[str]:
    from service.app import create_app
    from service.logs import configure_logging
    from service.records.statuses import PLACES, list_record, place
    from service.startup import prepare
    from service.storage.interface import Kind, Record

    with tempfile.TemporaryDirectory(prefix="pylon-bench-") as folder:
        prepared = prepare(
            servers.settings("RS256", Path(folder)) | {"PYLON_STATUS_LIST": "1"}, clock=time.time
        )
        configure_logging("critical", "json")
        now, store, draw = int(time.time()), prepared.store, random.Random(1)
        store.put(*(list_record(number) for number in range(_LISTS)), now=now)
        bits = [
            Record(Kind.STATUS, place(number, index), now + 86_400, str(number))
            for number in range(_LISTS)
            for index in draw.sample(range(PLACES), int(PLACES * share))
        ]
        for first in range(0, len(bits), _AT_ONCE):
            store.put(*bits[first : first + _AT_ONCE], now=now)
        app = create_app(prepared.settings, store, prepared.keyring)
        sizes: list[int] = []
        made: list[float] = []
        sent: list[float] = []
        for number_ in range(_LISTS):
            request = environ("GET", f"/oidc/status/{number_}")
            for took in (made, sent):
                began = time.process_time()
                answer = ask(app, request)
                took.append(time.process_time() - began)
                assert answer.status.startswith("200"), answer
            sizes.append(len(answer.body))
        store.close()
    return [
        f"{share:.1%}",
        number(len(bits)),
        number(median(sizes)),
        number(median(made) * 1e3, 1),
        number(median(sent) * 1e6),
    ]
