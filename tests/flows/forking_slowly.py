"""The shipped configuration of gunicorn, on a machine where a worker takes its time between its fork and its first line."""

import runpy
import time

globals().update(
    {name: value for name, value in runpy.run_path("deploy/gunicorn.conf.py").items() if name[0] != "_"}
)


def post_fork(_server: object, _worker: object) -> None:
    """Take that time."""
    time.sleep(1.5)
