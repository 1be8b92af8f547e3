"""`pylon-oidc deliveries`: logout tokens that clients have yet to get, or could not get."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import click

from service.cli.common import (
    as_date,
    as_minute,
    configured_store,
    fail,
    fail_configuration,
    json_option,
    print_rows,
    wide_option,
)
from service.deliveries import Deliveries
from service.delivering import deliverer_of
from service.logs import configure_logging
from service.records.deliveries import Delivery
from service.settings import ConfigurationError
from service.startup import prepare

#: How often a process of its own looks at the queue, in s.
_WATCH_POLL_S: Final = 1.0
_TIMES: Final = ("queued_at", "next_try_at")

_ids = click.argument("ids", nargs=-1)
_client = click.option("--client", "client_id", metavar="CLIENT_ID", help="All tokens of this client.")
_all = click.option("--all", "everything", is_flag=True, help="All tokens.")


@click.group()
def deliveries() -> None:
    """Logout tokens for clients: list them, try them again, drop them."""


@contextlib.contextmanager
def _queue() -> Iterator[Deliveries]:
    with configured_store() as store:
        yield Deliveries(store)


@deliveries.command("list")
@wide_option
@json_option
def list_deliveries(*, wide: bool, as_json: bool) -> None:
    """List the tokens that wait, and those that failed."""
    when = as_date if wide else as_minute
    with _queue() as queue:
        found = queue.shown(now=int(time.time()))
    rows = [delivery.shown() for delivery in found]
    if not as_json:
        for row in rows:
            row |= {name: None if row[name] is None else when(row[name]) for name in _TIMES}
    columns = ["id", "client_id", "user_id", "state", "tries", "failure", "next_try_at"]
    columns += ["sid", "issuer", "queued_at"] if wide else []
    print_rows(rows, columns, name="deliveries", as_json=as_json, wide=wide)


@deliveries.command("retry")
@_ids
@_client
@_all
def retry_deliveries(ids: tuple[str, ...], client_id: str | None, *, everything: bool) -> None:
    """Try logout tokens again now, those that were given up too."""
    count = _each(ids, client_id, everything, lambda queue: queue.retry)
    click.echo(f"{_told(count)} tried again now.")


@deliveries.command("drop")
@_ids
@_client
@_all
def drop_deliveries(ids: tuple[str, ...], client_id: str | None, *, everything: bool) -> None:
    """Remove logout tokens: their clients are not notified."""
    count = _each(ids, client_id, everything, lambda queue: queue.remove)
    click.echo(f"Dropped {count} logout token{'' if count == 1 else 's'}.")


@deliveries.command("watch")
def watch_deliveries() -> None:
    """Send logout tokens, as a process of its own, until it is stopped.

    With PYLON_DELIVERIES=watch the service leaves all of them to it.
    """
    try:
        prepared = prepare(clock=time.time)
    except ConfigurationError as error:
        fail_configuration(error.faults)
    settings, store, keys = prepared.settings, prepared.store, prepared.keyring
    configure_logging(settings.log_level, settings.log_format)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    deliverer = deliverer_of(settings, store, keys, time.time, poll_s=_WATCH_POLL_S)
    deliverer.begin()
    stopped.wait()
    deliverer.end()
    store.close()


def _told(count: int) -> str:
    return "1 logout token is" if count == 1 else f"{count} logout tokens are"


def _each(
    ids: Sequence[str],
    client_id: str | None,
    everything: bool,
    act: Callable[[Deliveries], Callable[..., bool]],
) -> int:
    """Do something to each that is named; to how many it was done."""
    if [bool(ids), client_id is not None, everything].count(True) != 1:
        raise click.UsageError("No logout token is named. Write their ids, --client CLIENT_ID, or --all.")
    now, done = int(time.time()), 0
    with _queue() as queue:
        for delivery_id in ids:
            if not act(queue)(delivery_id, now=now):
                fail(f"There is no logout token {delivery_id}.")
            done += 1
        if not ids:
            done = sum(act(queue)(each.id, now=now) for each in _of(queue, client_id, now))
    return done


def _of(queue: Deliveries, client_id: str | None, now: int) -> list[Delivery]:
    return [each for each in queue.all(now=now) if client_id in (None, each.client_id)]
