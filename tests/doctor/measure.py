"""How often `doctor` is right about deployments that were broken by somebody who had not seen its rules.

python -m tests.doctor.measure [NAME …]

They are in `invented/`: what each should give (`accept`, `says`) was written down before any rule was changed for it.

right   the first finding is what is wrong, and shows it; of a good one: nothing but notes
half    what is wrong is named, but not first, or without what shows it, or its fix changes nothing
wrong   something else is said to be wrong
missed  nothing is
harms   the fix is pasted, and something is wrong that was not before
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doctor.asking import Report, ask_doctor
from tests.doctor.deployment import Deployment, Files, fixed, read_deployments
from tests.doctor.fixing import DoesNotFit
from tests.doctor.running import Apps, Disk, Running, run
from tests.support.gunicorn import DidNotStart
from tests.support.nginx import NginxDidNotStart

GRADES = ("right", "half", "wrong", "missed", "harms")


@dataclass(frozen=True)
class Measured:
    """What came of one.

    Attributes:
        deployment: Which.
        grade: One of `GRADES`.
        said: What `doctor` said first.
    """

    deployment: Deployment
    grade: str
    said: str


def measure(deployment: Deployment, apps: Apps, disk: Disk, *, pastes: bool = True) -> Measured:
    """Run it, ask `doctor`, paste the first fix where it can be pasted, and ask once more.

    Args:
        deployment: Which.
        apps: Where its applications come from.
        disk: Its disk.
        pastes: Whether the fix is tried.
    """
    files = deployment.files()
    report = _asked(deployment, files, apps, disk)
    first = _first(report)
    said = "nothing" if first is None else f"{first['id']}: {first['seen']}"
    grade = _grade(deployment, report)
    if pastes and first is not None and can_be_pasted(first["fix"]):
        try:
            after = _asked(deployment, fixed(files, report.fix()), apps, disk)
        except DoesNotFit:
            grade = "half" if grade == "right" else grade
            said = f"(its fix changes nothing) {said}"
        except (DidNotStart, NginxDidNotStart):
            grade, said = "harms", f"(its fix does not start) {said}"
        else:
            new = {each["id"] for each in _faults(after)} - {each["id"] for each in _faults(report)}
            if new and len(_faults(after)) >= len(_faults(report)):
                grade, said = "harms", f"(then {', '.join(sorted(new))}) {said}"
    return Measured(deployment, grade, said)


def can_be_pasted(fix: Any) -> bool:
    """Not a command, and not a zone or a console of somebody else's."""
    return bool(fix) and bool(fix["file"]) and not fix["file"].startswith("the ")


def _grade(deployment: Deployment, report: Report) -> str:
    faults = _faults(report)
    if not deployment.accept:
        return "wrong" if faults or report.exit_code else "right"
    if not faults:
        return "missed"
    named = [each for each in faults if each["id"] in deployment.accept]
    if not named:
        return "wrong"
    first = _first(report)
    shown = re.search(deployment.says, json.dumps(first, ensure_ascii=False), re.DOTALL)
    return "right" if named[0] is first and shown else "half"


def _faults(report: Report) -> list[dict[str, object]]:
    return [each for each in report.findings if each["severity"] != "note"]


def _first(report: Report) -> dict[str, object] | None:
    return next(iter(_faults(report)), None)


def _asked(deployment: Deployment, files: Files, apps: Apps, disk: Disk) -> Report:
    with _cache() as cache, run(deployment, files, apps, disk, cache) as running:
        return ask_doctor(deployment.url, options_of(deployment, running))


def options_of(deployment: Deployment, running: Running) -> Sequence[str]:
    """What `doctor` is given: all that helps it, and what the deployment's file adds."""
    more = [running.disk.here(option) for option in deployment.options]
    return [*running.doctor_options(), "--proxy", deployment.proxy, *more]


@contextlib.contextmanager
def _cache() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pylon-c-"))
    folder.chmod(0o755)
    try:
        yield folder / "cache"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(found: Sequence[Measured]) -> Iterator[str]:
    """One line each, and how many of each grade."""
    width = max(len(each.deployment.name) for each in found)
    for each in found:
        yield f"{each.grade:7}{each.deployment.name:{width + 2}}{each.said[:110]}"
    counts = Counter(each.grade for each in found)
    yield ""
    yield "  ".join(f"{grade} {counts[grade]}" for grade in GRADES)
    yield f"{counts['right'] / len(found):.0%} of {len(found)} right"


def main(names: Sequence[str]) -> None:
    """Measure all, or those that are named, and print the table."""
    folder = Path(tempfile.mkdtemp(prefix="pylon-d-"))
    try:
        disk = Disk.write(folder)
        with Apps(disk) as apps:
            chosen = [each for each in read_deployments("invented") if not names or each.name in names]
            for line in table([measure(each, apps, disk) for each in chosen]):
                print(line)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
