"""Thirty deployments and more, each broken in one way: the first finding is the cause, and its mend mends it.

A deployment is a file in `deployments/` (broken) or `good/`; how to read one stands in `deployment.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.doctor.asking import Report, ask_doctor
from tests.doctor.deployment import Deployment, Files, mended, read_deployments
from tests.doctor.running import Apps, Disk, run

BROKEN, GOOD = read_deployments("deployments"), read_deployments("good")
_LONGEST_S = 5.0


class Ward:
    """Where deployments are run and asked about, one after another."""

    def __init__(self, apps: Apps, disk: Disk, folder: Path) -> None:
        self._apps, self._disk = apps, disk
        self._cache = folder / "cache"

    def empty_cache(self) -> None:
        """What the documentation says is to be done after a mend of the cache."""
        shutil.rmtree(self._cache, ignore_errors=True)

    def ask_before(self, deployment: Deployment) -> None:
        """Be a client of an earlier time."""
        with run(deployment, deployment.files_of_earlier(), self._apps, self._disk, self._cache) as running:
            for path in deployment.asked:
                assert b" 200 " in running.ask(path)

    def examine(self, deployment: Deployment, files: Files) -> Report:
        """Run it, and ask `doctor`."""
        with run(deployment, files, self._apps, self._disk, self._cache) as running:
            return ask_doctor(deployment.url, [*running.doctor_options(), *deployment.options])


@pytest.fixture
def ward(apps: Apps, disk: Disk, tmp_path: Path) -> Ward:
    """A ward with an empty cache."""
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    return Ward(apps, disk, tmp_path)


@pytest.mark.parametrize("deployment", BROKEN, ids=lambda each: each.name)
def test_the_first_finding_is_the_cause_and_its_mend_mends_it(deployment: Deployment, ward: Ward) -> None:
    """Issue "doctor": in each the right cause is the first finding; after its mend nothing but notes is found."""
    files = deployment.files()
    if deployment.asked:
        ward.ask_before(deployment)
    report = ward.examine(deployment, files)
    assert report.findings, "nothing was found"
    assert report.findings[0]["id"] == deployment.expect, report.faults
    assert report.exit_code == 1
    ward.empty_cache()
    after = ward.examine(deployment, mended(files, report.mend(deployment.proxy)))
    assert after.faults == []
    assert after.exit_code == 0


@pytest.mark.parametrize("deployment", GOOD, ids=lambda each: each.name)
def test_nothing_is_found_where_nothing_is_wrong(deployment: Deployment, ward: Ward) -> None:
    """Issue "doctor": good deployments give nothing but notes, within 5 s."""
    report = ward.examine(deployment, deployment.files())
    assert report.faults == []
    assert report.exit_code == 0
    assert report.duration_s < _LONGEST_S


def test_enough_is_broken() -> None:
    """Issue "doctor": thirty deliberately broken deployments."""
    assert len(BROKEN) >= 30
    assert {each.proxy for each in BROKEN} == {"nginx", "apache", "haproxy"}
