"""`pylon-oidc serve`: runs the service in production, with only the installed package and the environment."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final

import click

from service.serving.plan import Address, NoAddress, is_read_by_gunicorn, parse_address

_APP: Final = "service.wsgi:app"
_MOST_WORKERS: Final = 1024


class _AddressType(click.ParamType[Address]):
    name = "address"

    def convert(
        self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Parse the address. The error for a wrong one shows the right forms."""
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except NoAddress:
            self.fail("write HOST:PORT, [IPv6]:PORT or unix:/path", param, ctx)


def _gunicorn(bind: Address | None, workers: int | None) -> list[str]:
    config = ["-m", "gunicorn", "-c", "python:service.launch.gunicorn_conf"]
    where = ["--bind", str(bind)] if bind else []
    return [*config, *where, *(["--workers", str(workers)] if workers else []), _APP]


def _granian(bind: Address | None, workers: int | None) -> list[str]:
    if find_spec("granian") is None:
        raise click.UsageError("granian is not installed; run: pip install 'pylon-oidc[granian]'")
    where = ["--bind", str(bind)] if bind else []
    return ["-m", "service.launch.granian", *where, *(["--workers", str(workers)] if workers else []), _APP]


_SERVERS: Final[Mapping[str, Callable[[Address | None, int | None], list[str]]]] = {
    "gunicorn": _gunicorn,
    "granian": _granian,
}


def _check_first() -> None:
    """Report every fault, if gunicorn would stop at one of them before the application can report any."""
    if is_read_by_gunicorn():
        return
    from service.cli.common import fail_configuration
    from service.startup import inspect

    faults = inspect(now=int(time.time())).faults
    fail_configuration(faults)


@click.command()
@click.option(
    "--bind",
    type=_AddressType(),
    metavar="ADDRESS",
    help="Listen on HOST:PORT, [IPv6]:PORT or unix:/path. Default: 0.0.0.0:$PORT, else 127.0.0.1:4321.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, _MOST_WORKERS),
    metavar="N",
    help="The number of processes. Default: $WEB_CONCURRENCY, otherwise one per core, at least two.",
)
@click.option(
    "--server",
    type=click.Choice(sorted(_SERVERS)),
    default="gunicorn",
    show_default=True,
    help="The server.",
)
def serve(*, bind: Address | None, workers: int | None, server: str) -> None:
    """Run the service in production.

    A wrong setting ends it before any port is open (exit 2).
    """
    _check_first()
    command = [sys.executable, *_SERVERS[server](bind, workers)]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606
