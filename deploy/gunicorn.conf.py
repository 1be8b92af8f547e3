"""gunicorn's settings. Each value has its reason beside it.

gunicorn -c deploy/gunicorn.conf.py service.wsgi:app
"""

import gc
import os
import sys

import gunicorn.util

# Loading makes many objects and no garbage: looking for it meanwhile is a seventh of the start. A reload (HUP)
# reads this file again, and each worker ends it for itself.
gc.disable()


def _give_to(path, uid, gid):
    """Give a socket to whom it does not belong yet. gunicorn asks for it always, and systemd's filter denies the call."""
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.chown(path, uid, gid)


gunicorn.util.chown = _give_to


def _whole_number(name, most):
    """The number, None where it is unset or wrong: the application tells that, with all other faults."""
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and 1 <= int(value) <= most else None


_port = _whole_number("PORT", 65535)

# A PaaS gives the port and sends its router there; without one only this machine may ask.
bind = [f"0.0.0.0:{_port}" if _port else "127.0.0.1:4321"]

# A mint is CPU for a few hundred microseconds: a worker a core, and two at least so that one slow request does not
# stop the service.
workers = _whole_number("WEB_CONCURRENCY", 1024) or max(2, len(os.sched_getaffinity(0)))

# Slow and idle clients wait in the worker's poller; a request takes a thread only when all of it is there.
worker_class = "service.serving.worker.BufferingWorker"
worker_connections = 1000
if _port:
    # A platform's database is another machine: while one request waits for it, others go on. Its router keeps its
    # connections for longer than most routers do.
    threads = 16
    keepalive = 75
else:
    # A local database answers at once: one request at a time is the least CPU for one.
    threads = 1
    keepalive = 15

# The whole application is loaded once, before the workers are forked: a wrong configuration ends here, before the
# port opens, and the workers share the memory. No database connection is open at the fork.
preload_app = True

# Requests under way may finish; then the process ends.
graceful_timeout = 25
timeout = 30

# Headers that a proxy may set, from peers that are named. Over a Unix socket every peer is trusted by gunicorn, so
# no header may take part in what is served: the list of headers that become SCRIPT_NAME or PATH_INFO is empty.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS") or "127.0.0.1,::1"
forwarder_headers = ""
# Nor one that tells the scheme: where two of them disagree gunicorn would refuse the request.
secure_scheme_headers = {}
# A header whose name holds an underscore could pass for another one in the WSGI environment: dropped.
header_map = "drop"

# An authorization request carries an id_token_hint of 2 KB and more: the default of 4,094 answers 414.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190

# No socket by which others on this machine could steer the server.
control_socket_disable = True

# One line a request is written by the application, with a request id and without the query string.
accesslog = None
# Its own lines have the form of the application's log, also after a reload.
logger_class = "service.serving.log.KeptLogger"


def on_starting(server):
    """Refuse, before any port opens, what dev mode must never be bound to."""
    if not (os.environ.get("PYLON_DEV_MODE") or os.environ.get("PYLON_DEV_MODE_FILE")):
        return
    from service.issuer import InvalidHost, parse_host
    from service.settings import read_settings

    if not read_settings().settings.dev_mode:
        return
    for address in server.cfg.bind if isinstance(server.cfg.bind, list) else [server.cfg.bind]:
        try:
            local = parse_host(address).is_loopback
        except InvalidHost:  # a Unix socket, a file descriptor: others may stand behind it
            local = False
        if not local:
            print(
                f"PYLON_DEV_MODE: is on and gunicorn would bind {address}; bind 127.0.0.1, or write 0",
                file=sys.stderr,
            )
            sys.exit(2)


def post_worker_init(_worker):
    """Look for garbage from now on. What gunicorn itself refuses repeats nothing of the request: its status says enough."""
    gc.enable()
    write_error = gunicorn.util.write_error
    gunicorn.util.write_error = lambda sock, status, reason, _repeated: write_error(sock, status, reason, "")


def when_ready(_server):
    """Put what is loaded out of the collector's reach, so that the workers go on sharing its memory."""
    gc.collect()
    gc.freeze()
