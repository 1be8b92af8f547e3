"""The shipped configuration of gunicorn. A worker that ends prints which modules it has loaded since its fork."""

import runpy
import sys

_shipped = runpy.run_path("deploy/gunicorn.conf.py")
globals().update({name: value for name, value in _shipped.items() if name[0] != "_"})
_loaded: set[str] = set()


def when_ready(server: object) -> None:
    """Note what the workers share."""
    _shipped["when_ready"](server)
    _loaded.update(sys.modules)


def worker_exit(_server: object, _worker: object) -> None:
    """Print the rest."""
    print("loaded:", *(sys.modules.keys() - _loaded), flush=True)
