"""Fixtures of the HTTP tests: an application for an environment, and its log."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.keys.signing import Keys
from service.keys.starting import load_keyring, load_managed_keys
from service.logs import configure_logging
from service.settings import Settings, read_settings
from service.startup import open_store
from service.storage.interface import Store
from service.storage.sql import SqlStore
from tests.http.driver import Clock, House
from tests.support.databases import make_migrated
from tests.support.gunicorn import ADMIN, SECRET, TRUSTED

Serve = Callable[..., House]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log as the program writes it, every level of it, as text; in the end each refusal in it has said its rule."""
    tape = io.StringIO()
    loggers = [logging.getLogger(name) for name in (None, "gunicorn.error", "authlib")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    with contextlib.redirect_stderr(tape):
        configure_logging("debug", "json")
    yield tape
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    assert [line for line in tape.getvalue().splitlines() if _is_refusal_without_rule(line)] == []


def _is_refusal_without_rule(text: str) -> bool:
    """Whether it is the line of a refused request without `error`, or without one word of ours as `cause`."""
    line = json.loads(text)
    if line["event"] != "request" or line["status"] < 400 or line["route"] == "/readyz":
        return False
    return "error" not in line or not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", line.get("cause", ""))


def _settings(environ: dict[str, str]) -> Settings:
    reading = read_settings(environ)
    assert not reading.faults, reading.faults
    return reading.settings


@functools.lru_cache(maxsize=32)
def _kept_settings(environ: frozenset[tuple[str, str]]) -> Settings:
    """Settings are frozen: what one environment says is read once. A private key takes 30 ms, most tests less."""
    return _settings(dict(environ))


def settings_of(environ: dict[str, str], folder: Path) -> Settings:
    """The settings of an environment, with that data folder; read again where a file has a part in it."""
    if any(name.endswith(("_FILE", "_PATH", "_DIR", "_POLICIES")) for name in environ):
        return _settings({"PYLON_DATA_DIR": str(folder)} | environ)
    return replace(_kept_settings(frozenset(environ.items())), data_dir=folder)


@pytest.fixture
def serve(tmp_path: Path, log: io.StringIO) -> Iterator[Serve]:
    """Make the application of an environment: `serve(PYLON_OIDC_ISSUER="https://id.example.com")`.

    `None` unsets one of the three secrets that are there by default. `store_of` may wrap the store.
    """
    begun: list[SqlStore] = []

    def make(store_of: Callable[[Store], Store] = lambda store: store, **environ: str | None) -> House:
        folder = tmp_path / f"data{len(begun)}"
        make_migrated(folder / "pylon.db")
        given: dict[str, Any] = {
            "PYLON_JWT_SECRET": SECRET,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_TRUSTED_SECRET": TRUSTED,
        } | environ
        settings = settings_of({name: value for name, value in given.items() if value is not None}, folder)
        clock = Clock()
        real_store = open_store(settings)
        begun.append(real_store)
        store = store_of(real_store)
        keyring: Keys = Keys(load_keyring(settings, make_key_file=True))
        if settings.managed:
            keyring, _ = load_managed_keys(settings, store, settings.margins, clock)
        return House(create_app(settings, store, keyring, clock), settings, clock, log)

    yield make
    for store in begun:
        store.close()


@pytest.fixture
def house(serve: Serve) -> House:
    """The application with the default settings and its three secrets."""
    return serve()
