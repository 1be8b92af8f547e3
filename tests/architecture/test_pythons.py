"""Everything that the lock files install runs on the oldest Python that the project promises."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

PROJECT = Path(__file__).parents[2]


def oldest_python() -> Version:
    """The lower bound of `requires-python`, which has no upper one."""
    promised = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert promised.startswith(">=")
    return Version(promised.removeprefix(">="))


def too_new(wanted: dict[str, str], python: Version) -> list[str]:
    """The packages that do not run on a Python, with what each requires."""
    return [name for name, required in wanted.items() if python not in SpecifierSet(required)]


def test_every_installed_package_runs_on_the_oldest_python() -> None:
    """A distribution's Python may be the first patch of its version: Debian 12 has 3.11.2."""
    wanted = {one.name: one.metadata["Requires-Python"] or "" for one in distributions()}
    assert {"falcon", "pytest"} <= wanted.keys()
    assert too_new(wanted, oldest_python()) == []


def test_a_package_for_a_later_python_is_found() -> None:
    """Also one that only needs a later patch."""
    wanted = {"old": ">=3.8", "any": "", "patch": ">=3.11.5", "next": ">=3.12"}
    assert too_new(wanted, Version("3.11")) == ["patch", "next"]
