"""CPU and memory of process trees, as the kernel counts them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def own_cpu_s(pid: int) -> float:
    """CPU that one process has used so far, user and system, in s; 0 when it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S  # utime and stime, proc(5)
    return 0.0


def cpu_s(pid: int) -> float:
    """The same of a process tree: of the processes that live, and of those that ended and were waited for."""
    return sum(own_cpu_s(one) + _ended_cpu_s(one) for one in tree(pid))


def _ended_cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) * _TICK_S  # cutime and cstime
    return 0.0


def precise_cpu_s(pid: int) -> float:
    """CPU of a process tree in s, as the scheduler counts it in ns; only of the processes that live."""
    total_ns = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total_ns += int(Path(f"/proc/{one}/schedstat").read_text().split()[0])
    return total_ns / 1e9


@dataclass(frozen=True)
class Memory:
    """Memory of one process in MB: its fair share (PSS), and what it shares with nobody."""

    pss_mb: float
    private_mb: float


def memory(pid: int) -> Memory:
    """Memory of one process.

    Raises:
        OSError: When there is no such process.
    """
    kb = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        kb[name.rstrip(":")] = int(value)
    return Memory(kb["Pss"] / 1000, (kb["Private_Clean"] + kb["Private_Dirty"]) / 1000)
