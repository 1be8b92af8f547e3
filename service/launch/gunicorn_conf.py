"""gunicorn's settings, carried by the package. Each value that is not the plan's has its reason beside it.

gunicorn -c python:service.launch.gunicorn_conf service.wsgi:app
"""

from __future__ import annotations

import gc
import os
from typing import Any

import gunicorn.util

from service.serving.plan import GRACEFUL_S, HUNG_S, MAX_FIELDS, MAX_LINE_BYTES, plan

# Loading makes many objects and no garbage: looking for it meanwhile is a seventh of the start. Each worker ends it
# for itself.
gc.disable()


def _give_to(path: str, uid: int, gid: int) -> None:
    """Give a socket to whom it does not belong yet. gunicorn asks for it always, and systemd's filter denies the call."""
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.chown(path, uid, gid)


gunicorn.util.chown = _give_to

_plan = plan()
bind = [str(_plan.address)]
workers = _plan.workers

# Slow and idle clients wait in the worker's poller; a request takes a thread only when all of it is there.
worker_class = "service.serving.worker.BufferingWorker"
worker_connections = 1000
threads = _plan.threads
keepalive = _plan.keepalive_s

# The whole application is loaded once, before the workers are forked: a wrong configuration ends here, before the
# port opens, and the workers share the memory. No database connection is open at the fork.
preload_app = True

graceful_timeout = GRACEFUL_S
timeout = HUNG_S

# Headers that a proxy may set, from peers that are named. Over a Unix socket every peer is trusted by gunicorn, so
# no header may take part in what is served: the list of headers that become SCRIPT_NAME or PATH_INFO is empty.
forwarded_allow_ips = _plan.forwarded_allow_ips
forwarder_headers = ""
# Nor one that tells the scheme: where two of them disagree gunicorn would refuse the request.
secure_scheme_headers: dict[str, str] = {}
# A header whose name holds an underscore could pass for another one in the WSGI environment: dropped.
header_map = "drop"

limit_request_line = MAX_LINE_BYTES
limit_request_fields = MAX_FIELDS
limit_request_field_size = MAX_LINE_BYTES

# No socket by which others on this machine could steer the server.
control_socket_disable = True

# One line a request is written by the application, with a request id and without the query string.
accesslog = None
# Its own lines have the form of the application's log, also after a reload.
logger_class = "service.serving.log.KeptLogger"


def on_starting(server: Any) -> None:
    """Refuse, before any port opens, what must not be bound."""
    from service.launch.binding import (
        check_binding,
    )  # the application, and with it the settings, is loaded by now

    check_binding(server.cfg.bind if isinstance(server.cfg.bind, list) else [server.cfg.bind], "gunicorn")


def post_worker_init(_worker: Any) -> None:
    """Look for garbage from now on. What gunicorn itself refuses repeats nothing of the request: its status says enough."""
    gc.enable()
    write_error = gunicorn.util.write_error
    gunicorn.util.write_error = lambda sock, status, reason, _repeated: write_error(sock, status, reason, "")


def when_ready(_server: Any) -> None:
    """Put what is loaded out of the collector's reach, so that the workers go on sharing its memory."""
    gc.collect()
    gc.freeze()
