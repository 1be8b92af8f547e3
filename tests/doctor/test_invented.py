"""Forty deployments that were broken by somebody who had not seen the rules: `measure.py` prints them as a table."""

from __future__ import annotations

import pytest

from tests.doctor.deployment import Deployment, read_deployments
from tests.doctor.measure import measure
from tests.doctor.running import Apps, Disk

INVENTED = read_deployments("invented")


@pytest.mark.parametrize("deployment", INVENTED, ids=lambda each: each.name)
def test_what_was_written_down_before_is_found(deployment: Deployment, apps: Apps, disk: Disk) -> None:
    """The first finding is what is wrong, and shows it; a deployment that is well gives nothing but notes."""
    measured = measure(deployment, apps, disk, pastes=False)
    assert measured.grade == "right", measured.said


def test_there_are_forty() -> None:
    """Some of them are well: a program that finds something everywhere would be right about the rest."""
    assert len(INVENTED) == 40
    assert sum(not each.accept for each in INVENTED) == 3
