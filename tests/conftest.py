"""What every test may ask for: a gunicorn, a PostgreSQL, a fresh database of either kind.

With `CI=true` nothing is left out silently: a skipped or expected failure counts as a failure.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings as hypothesis_settings

from service.logs import request_log
from tests.support.gunicorn import SERVERS, Gunicorn
from tests.support.postgres import PostgresCluster

IN_CI = os.environ.get("CI", "").lower() in {"true", "1"}

# Examples are timed by nobody: machines that run tests are busy. In CI they are the same in every run.
hypothesis_settings.register_profile("dev", deadline=None)
hypothesis_settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis_settings.load_profile("ci" if IN_CI else "dev")


def _refuse_what_did_not_run(report: pytest.CollectReport | pytest.TestReport) -> None:
    """Turn a report of something skipped, or failing as expected, into a failure."""
    was_expected = hasattr(report, "wasxfail")
    if not (report.skipped or was_expected):
        return
    reason = report.wasxfail if was_expected else report.longrepr
    if isinstance(reason, tuple):
        reason = reason[2]
    report.outcome = "failed"
    report.longrepr = f"with CI=true every test runs and passes, but this one did not: {reason}"
    if was_expected:
        del report.wasxfail


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `CI=true`, a skipped test or an expected failure fails."""
    report = yield
    if IN_CI:
        _refuse_what_did_not_run(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """With `CI=true`, a module that skips itself fails."""
    report = yield
    if IN_CI:
        _refuse_what_did_not_run(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time goes: the ten files whose tests took longest, their fixtures included."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and not isinstance(report, pytest.SubtestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("ten slowest groups")
    for file, taken in sorted(seconds.items(), key=lambda item: -item[1])[:10]:
        terminalreporter.write_line(f"{taken:7.1f} s  {file}")


@pytest.fixture(autouse=True)
def _log_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs in this process sets its log up: loggers, woken now or later, must not keep that."""
    configure = structlog.configure

    def configure_for_this_test(**settings: Any) -> None:
        configure(**settings | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_for_this_test)
    yield
    structlog.reset_defaults()
    request_log.configure(None, is_on=True)


@pytest.fixture(params=SERVERS)
def each_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test by each server: all that it starts and that names none is that one."""
    monkeypatch.setattr(Gunicorn, "usual", request.param)
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def gunicorn() -> Iterator[Callable[..., Gunicorn]]:
    """Start gunicorns with the arguments of `Gunicorn`; all of them end with the test."""
    begun: list[Gunicorn] = []

    def start(**options: Any) -> Gunicorn:
        server = Gunicorn(**options)
        begun.append(server)
        return server

    yield start
    for server in begun:
        server.kill()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A running PostgreSQL, one for each process that runs tests."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database; the server is up again after the test, whatever it did."""
    postgres_cluster.start()
    url = postgres_cluster.create_database()
    yield url
    postgres_cluster.start()
    postgres_cluster.drop_database(url)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, to be copied: a migration costs more than most tests."""
    from tests.storage.stores import migrate

    path = tmp_path_factory.mktemp("template") / "pylon.sqlite3"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_cluster: PostgresCluster) -> str:
    """The URL of a migrated, empty PostgreSQL database, to be copied."""
    from tests.storage.stores import migrate

    postgres_cluster.start()
    url = postgres_cluster.create_database()
    migrate(url)
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'pylon.sqlite3'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database, once of each kind."""
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
    return url
