"""The service on a full disk: by `on_small_disks.py`, where one may mount."""

from __future__ import annotations

from pathlib import Path

from tests.support.small_disk import run_on_small_disks


def test_on_small_disks() -> None:
    """Every test of `on_small_disks.py` passes, on disks that are filled up."""
    run_on_small_disks(Path(__file__).with_name("on_small_disks.py"))
