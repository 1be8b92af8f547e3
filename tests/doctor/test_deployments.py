"""Thirty deployments and more, each broken in one way: the first finding is the cause, and its fix fixes it.

A deployment is a file in `deployments/` (broken) or `good/`; `deployment.py` says how to read one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.doctor.catalogue import Finding, Kind, kinds
from tests.doctor.asking import Report, ask_doctor
from tests.doctor.deployment import Deployment, Files, Fix, fixed, read_deployments
from tests.doctor.fixing import DoesNotFit
from tests.doctor.measure import can_be_pasted, options_of
from tests.doctor.running import FIRST, OTHER_CLIENT, Apps, Disk, Running, run
from tests.support.cases import each_of
from tests.support.pace import in_time

BROKEN, GOOD = read_deployments("deployments"), read_deployments("good")
INVENTED = read_deployments("invented")
PROXIES = {"nginx", "apache", "haproxy", "caddy"}
_LONGEST_S = 5.0


class Ward:
    """Where deployments are run and asked about, one after another."""

    def __init__(self, apps: Apps, disk: Disk, folder: Path) -> None:
        self._apps, self._disk = apps, disk
        self._cache = folder / "cache"

    def empty_cache(self) -> None:
        """What the documentation says is to be done after a fix of the cache."""
        shutil.rmtree(self._cache, ignore_errors=True)

    def ask_before(self, deployment: Deployment) -> None:
        """Be a client of an earlier time: two hours ago, where the service was another one then."""
        past = replace(deployment, clocks={FIRST: -7200} if deployment.earlier else {})
        with run(past, deployment.files_of_earlier(), self._apps, self._disk, self._cache) as running:
            for path in deployment.asked:
                assert b" 200 " in running.ask(path)

    def examine(self, deployment: Deployment, files: Files) -> Report:
        """Run it, and ask `doctor`, which is given all that helps it."""
        with self._running(deployment, files) as running:
            return ask_doctor(deployment.url, options_of(deployment, running))

    def examine_thrice(self, deployment: Deployment, files: Files) -> tuple[Report, Report, Report]:
        """The same, then with a client whose users are asked for their consent, then with nothing but the address."""
        with self._running(deployment, files) as running:
            full = options_of(deployment, running)
            asks = [*full, "--client-id", OTHER_CLIENT]
            plain = [*running.way(), *deployment.options]
            url = deployment.url
            return ask_doctor(url, full), ask_doctor(url, asks), ask_doctor(url, plain)

    @contextlib.contextmanager
    def _running(self, deployment: Deployment, files: Files) -> Iterator[Running]:
        with run(deployment, files, self._apps, self._disk, self._cache) as running:
            # nginx reads an entry of its cache again after a start, and does not do so for two requests at once.
            for path in deployment.asked:
                running.ask(path)
            yield running


@pytest.fixture
def ward(apps: Apps, disk: Disk, tmp_path: Path) -> Ward:
    """A ward with an empty cache."""
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    return Ward(apps, disk, tmp_path)


@pytest.mark.parametrize("deployment", BROKEN, ids=lambda each: each.name)
def test_the_first_finding_is_the_cause_and_its_fix_works(deployment: Deployment, ward: Ward) -> None:
    """docs/cli.md: in each the right cause is the first finding; after its fix nothing but notes is found."""
    files = deployment.files()
    if deployment.asked:
        ward.ask_before(deployment)
    report = ward.examine(deployment, files)
    assert report.findings, "nothing was found"
    assert report.findings[0]["id"] == deployment.expect, report.faults
    assert re.search(deployment.says, str(report.findings[0])), report.findings[0]
    assert set(deployment.also) <= {each["id"] for each in report.findings}, report.faults
    assert report.exit_code == 1
    if not deployment.fixable:
        assert not can_be_pasted(report.findings[0]["fix"])
        return
    ward.empty_cache()
    after = ward.examine(deployment, fixed(files, report.fix()))
    assert after.faults == []
    assert after.exit_code == 0


@pytest.mark.parametrize("deployment", GOOD, ids=lambda each: each.name)
def test_nothing_is_found_where_nothing_is_wrong(deployment: Deployment, ward: Ward) -> None:
    """docs/cli.md: good deployments give nothing but notes, within 5 s, with or without what helps it."""
    full, asks, plain = ward.examine_thrice(deployment, deployment.files())
    told = {each["id"] for each in full.findings}
    assert deployment.expect in {"", *told}
    for report in (full, asks, plain):
        assert report.faults == []
        assert report.exit_code == 0
        assert in_time(report.duration_s, _LONGEST_S)


@each_of("kind", kinds().values(), ids=lambda kind: kind.id)
def test_a_fix_that_is_called_tested_is(kind: Kind) -> None:
    """A fix with `tested = true` changes a deployment of its finding; the test above then applies it."""
    found = [each for each in [*BROKEN, *INVENTED] if kind.id in (each.expect, *each.accept)]
    for number, fix in enumerate(kind.fixes):
        proxies = {fix.proxy} & PROXIES or PROXIES  # a cache, a setting: behind any of them
        fitting = [each for each in found if each.proxy in proxies and _fits(each, kind, number)]
        assert fitting or not fix.tested, fix


def _fits(deployment: Deployment, kind: Kind, number: int) -> bool:
    """Whether a fix changes the deployment's files."""
    url = urlsplit(deployment.url)
    values = {
        "url": deployment.url,
        "origin": f"https://{url.netloc}",
        "path": url.path,
        "name": url.hostname or "",
        "endpoint": "/oidc/token",
    }
    alone = replace(kind, fixes=(replace(kind.fixes[number], variant=""),))
    (fix,) = Finding(alone, "", values).fixes()
    try:
        fixed(deployment.files(), Fix(fix.file, fix.block, fix.line))
    except DoesNotFit:
        return False
    return True


def test_enough_is_broken() -> None:
    """docs/cli.md: thirty deliberately broken deployments."""
    assert len(BROKEN) >= 30
    assert {each.proxy for each in BROKEN} == PROXIES
