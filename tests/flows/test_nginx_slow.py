"""Slow clients in front of the shipped site: each wait of nginx has an end, and none of them is the service's."""

from __future__ import annotations

import time

from tests.flows.dawdling import Dawdlers
from tests.flows.polling import wait_until
from tests.support.gunicorn import SECRET, Gunicorn
from tests.support.nginx import OUTSIDER, NginxSite
from tests.support.pace import in_time

#: What ends a connection, and when, in s.
ENDED = {
    "says nothing": (9.5, 15),
    "a byte of the head a second": (9.5, 15),
    "stops within the body": (9.5, 15),
    "idle after an answer": (29, 36),
}


def test_every_wait_for_a_client_ends_and_holds_nobody_up() -> None:
    """10 s for a whole head and for a pause in a body, 30 s idle; only nginx holds a body that comes at a byte a second."""
    with Gunicorn(unix=True, WEB_CONCURRENCY="1", PYLON_JWT_SECRET=SECRET) as server:
        assert server.socket_path
        with NginxSite(f"unix:{server.socket_path}") as site:
            slow = Dawdlers(
                lambda: site.connect(source=OUTSIDER),
                [*ENDED, "a byte of the body a second"],
                100,
                host=site.authority,
            )
            with slow.at_work():

                def all_have_ended() -> bool:
                    began = time.monotonic()
                    assert site.call("GET", "/oidc/jwks").status == 200
                    assert site.call("POST", "/api/auth/jwt").status == 401
                    assert in_time(time.monotonic() - began, 2)
                    time.sleep(0.2)
                    return all(slow.ended[kind] for kind in ENDED)

                wait_until(all_have_ended)
    for kind, (least, most) in ENDED.items():
        lasted = [seconds for seconds, _ in slow.ended[kind]]
        assert min(lasted) > least and in_time(min(lasted), most), (kind, lasted)
