"""gunicorn's settings. Each value that does not come from the plan has its reason in a comment.

gunicorn -c python:service.launch.gunicorn_conf service.wsgi:app
"""

from __future__ import annotations

import gc
import os
from typing import Any

import gunicorn.util

from service.serving.plan import GRACEFUL_S, HUNG_S, MAX_FIELDS, MAX_LINE_BYTES, plan

# Loading creates many objects and no garbage, and collecting takes a seventh of the start. Each worker turns the
# collector on again.
gc.disable()


def _give_to(path: str, uid: int, gid: int) -> None:
    """Change a socket's owner only if it differs. gunicorn always calls chown, which systemd's filter denies."""
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.chown(path, uid, gid)


gunicorn.util.chown = _give_to

_plan = plan()
bind = [str(_plan.address)]
workers = _plan.workers

# Slow and idle clients wait in the worker's poller. A request takes a thread only once it has arrived completely.
worker_class = "service.serving.worker.BufferingWorker"
worker_connections = 1000
threads = _plan.threads
keepalive = _plan.keepalive_s

# The whole application is loaded once, before the workers are forked: with a wrong configuration the process exits
# before the port opens, and the workers share the memory. No database connection is open at the fork.
preload_app = True

graceful_timeout = GRACEFUL_S
timeout = HUNG_S

# The peers whose forwarding headers are believed. gunicorn trusts every peer of a Unix socket, so no header may
# change what is served: the list of headers that become SCRIPT_NAME or PATH_INFO is empty.
forwarded_allow_ips = _plan.forwarded_allow_ips
forwarder_headers = ""
# No header sets the scheme either: gunicorn refuses a request in which two of them disagree.
secure_scheme_headers: dict[str, str] = {}
# A header with an underscore in its name could pass for another one in the WSGI environment, so it is dropped.
header_map = "drop"

limit_request_line = MAX_LINE_BYTES
limit_request_fields = MAX_FIELDS
limit_request_field_size = MAX_LINE_BYTES

# No control socket that other programs on this machine could use.
control_socket_disable = True

# The application logs one line for each request, with a request id and without the query string.
accesslog = None
# gunicorn's own lines have the format of the application's log, also after a reload.
logger_class = "service.serving.log.KeptLogger"


def on_starting(server: Any) -> None:
    """Refuse addresses that must not be bound, before any port opens."""
    # The application and its settings are already loaded.
    from service.launch.binding import check_binding

    check_binding(server.cfg.bind if isinstance(server.cfg.bind, list) else [server.cfg.bind], "gunicorn")


def post_worker_init(worker: Any) -> None:
    """Turn the collector on. gunicorn's own error answers repeat nothing of the request: the status says enough."""
    gc.enable()
    write_error = gunicorn.util.write_error
    gunicorn.util.write_error = lambda sock, status, reason, _repeated: write_error(sock, status, reason, "")
    getattr(worker.wsgi, "begin_work", lambda: None)()


def when_ready(_server: Any) -> None:
    """Exclude what is loaded from collection, so that the workers keep sharing its memory."""
    gc.collect()
    gc.freeze()
