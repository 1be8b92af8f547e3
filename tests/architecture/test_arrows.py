"""The arrows of the house run down and in no circle: what docs/architecture.md draws is what the linter holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.docs.markdown import PROJECT, blocks, page
from tests.support.gunicorn import clean_environment

_CONTRACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
_LAYERS = next(each["layers"] for each in _CONTRACTS if each["type"] == "layers")


def test_the_floors_that_are_drawn_are_those_that_are_held() -> None:
    """docs/architecture.md draws each floor of `pyproject.toml`, in its order, and every room of the service stands on one."""
    drawn = blocks(page("architecture.md"))["floors"].code.strip().splitlines()
    assert drawn == [layer.replace("service.", "") for layer in _LAYERS]
    rooms = {
        path.stem
        for path in (PROJECT / "service").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }
    assert {room for layer in drawn for room in layer.split(" | ")} == rooms


def test_an_arrow_up_and_a_circle_are_found(tmp_path: Path) -> None:
    """The lowest floor that uses the highest, and two files of one room that use each other."""
    shutil.copytree(PROJECT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for file, line in (
        ("handles.py", "import service.app"),
        ("keys/algorithms.py", "import service.keys.material"),
        ("subjects.py", "import httpx"),
    ):
        with (tmp_path / "service" / file).open("a") as code:
            code.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "service.handles -> service.app" in said
    assert "never the other way round BROKEN" in said
    assert "neither of the house's rooms nor within one BROKEN" in said
    assert "service.subjects -> httpx" in said
