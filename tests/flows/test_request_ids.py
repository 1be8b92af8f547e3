"""Every line of the log that comes of a request has its id, and no line has that of another, on either server."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flows.polling import wait_until
from tests.support.gunicorn import SECRET, Gunicorn

WAYS: dict[str, dict[str, str]] = {
    "threads": {"PORT": "4321"},
    "one thread": {},
    "granian": {"server": "granian"},
    "granian, threads": {"server": "granian", "PORT": "4321"},
}
_COUNT = 120


@pytest.mark.parametrize("way", WAYS)
def test_lines_of_requests_at_once_are_told_apart(way: str) -> None:
    """Each refused request has two lines, written far from each other, of its id; what no application saw has none."""

    with Gunicorn(PYLON_JWT_SECRET=SECRET, WEB_CONCURRENCY="1", **WAYS[way]) as server:

        def ask(number: int) -> None:
            headers = {"X-Request-Id": f"request-{number}"}
            assert server.call("GET", "/oidc/authorize", headers=headers).status == 501
            if number % 10 == 0:
                server.raw(b"nonsense\r\n\r\n")

        with ThreadPoolExecutor(12) as clients:
            list(clients.map(ask, range(_COUNT)))

        def lines() -> list[tuple[str, str | None]]:
            found = [(line["event"], line.get("request_id")) for line in server.log_lines()]
            return [(event, of) for event, of in found if event in {"refused", "request"} and of != "probe"]

        asked = [f"request-{number}" for number in range(_COUNT)]
        expected = Counter((event, of) for event in ("refused", "request") for of in asked)
        wait_until(lambda: not expected - Counter(lines()), timeout_s=60)
        assert Counter(of for _, of in lines() if of in asked) == Counter(asked * 2)
        others = [line for line in server.log_lines() if line["event"] not in {"refused", "request"}]
        assert [line for line in others if "request_id" in line] == []
