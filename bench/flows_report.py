"""The report of `flows`: ratios first, then one table a row, 80 columns wide."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench import clients, report
from bench.providers import node, ours
from bench.providers.base import ROWS

if TYPE_CHECKING:
    from bench.flows import Flows, Result

#: Compared with the peer on the same kind of database: CPU of an answer, by server; then the rate compared with the best on disk.
_CPU_GOALS = {
    "code exchange": {"gunicorn": 0.65, "granian": 0.5},
    "refresh": {"gunicorn": 0.65, "granian": 0.5},
    "userinfo": {"gunicorn": 1.3, "granian": 0.7},
    "introspection": {"gunicorn": 1.3, "granian": 0.7},
}
_MINT_GOALS = {
    "mint HS256": {"gunicorn": 1.0, "granian": 0.4},
    "mint RS256": {"gunicorn": 2.0, "granian": 1.5},
}
_RATE_GOALS = {"gunicorn": 1.3, "granian": 1.8}
_SERVERS = ("gunicorn", "granian")


def section(flows: Flows) -> str:
    """All tables."""
    parts = [_goals(flows), "", "## What each answer takes", ""]
    parts += [
        f"{clients.PROCESSES * clients.CONNECTIONS} connections, medians of "
        f"{len(flows.signature_us)} rounds. CPU µs: of all processes of the server, an answer; db µs: of its PostgreSQL (PG); /s: answers a second; "
        "p50, p99: ms; err.: requests that failed. "
        f"One RSA-2048 signature (RS): {_median(flows.signature_us):.0f} µs. All of them together, idle: "
        f"{flows.idle_us / 1e6:.3f} cores.",
        "",
    ]
    for row in ROWS:
        if flows.results[row]:
            parts += [f"### {row[0].upper()}{row[1:]}", "", _row(flows, row), ""]
    parts += ["## What each is", "", _about(flows), ""]
    parts += [
        f"- {name}: {about.what}. On disk when it answers: {about.durable}."
        for name, about in flows.providers.items()
    ]
    parts += [f"- {name}: not available: {why.splitlines()[0][:300]}" for name, why in flows.absent.items()]
    return "\n".join(parts)


def _row(flows: Flows, row: str) -> str:
    lines = []
    for name in flows.providers:
        results = flows.results[row].get(name)
        if results is None:
            lines.append([name, *"------"])
            continue
        lines.append(
            [
                name,
                report.number(_of(results, "cpu_us")),
                report.number(_database_us(results)) if name.endswith(" PG") else "-",
                report.number(_of(results, "rate")),
                _ms(_of(results, "p50_ms")),
                _ms(_of(results, "p99_ms")),
                str(sum(one.errors for one in results)),
            ]
        )
    return report.table(["", "CPU µs", "db µs", "/s", "p50", "p99", "err."], lines)


def _database_us(results: list[Result]) -> float | None:
    """Of the rounds in which none of its processes ended: what such a process had used is missing afterwards."""
    counted = [one.database_us for one in results if one.database_us >= 0]
    return _median(counted) if counted else None


def _ms(value: float) -> str:
    return report.number(value, 1 if value < 100 else 0)


def _about(flows: Flows) -> str:
    lines = [
        [name, f"{about.cold_start_s:.2f}", f"{about.pss_mb:,.0f}"] for name, about in flows.providers.items()
    ]
    return report.table(["", "cold start, s", "PSS of all processes, MB"], lines)


def _goals(flows: Flows) -> str:
    """What was wanted, with its ratio; of those whose two sides are there."""
    rows: list[list[str]] = []
    signature = flows.signature_us
    for row, bounds in _MINT_GOALS.items():
        for server in _SERVERS:
            mine = flows.results[row].get(ours.name(server, postgres=False))
            if mine:
                value = _median([one.cpu_us / us for one, us in zip(mine, signature, strict=True)])
                rows.append(_goal(f"{row}, {server}: CPU", value, bounds[server], "RS"))
    for row, bounds in _CPU_GOALS.items():
        for postgres, store in ((False, "sqlite"), (True, "postgres")):
            for server in _SERVERS:
                mine = flows.results[row].get(ours.name(server, postgres))
                peer = flows.results[row].get(node.name(store))
                if mine and peer:
                    where = "PostgreSQL" if postgres else "SQLite"
                    value = _ratio(mine, peer, "cpu_us")
                    rows.append(_goal(f"{row}, {server}, {where}: CPU", value, bounds[server], "×"))
    for row in _CPU_GOALS:
        for server in _SERVERS:
            best = _best(flows, row)
            mine = flows.results[row].get(ours.name(server, postgres=False))
            if mine and best:
                value = _ratio(mine, best, "rate")
                rows.append(
                    _goal(f"{row}, {server}, SQLite: rate", value, _RATE_GOALS[server], "×", least=True)
                )
    if not rows:
        return "No ratios: the other side of each is missing."
    note = (
        "CPU compared with `oidc-provider` on the same kind of database; rates compared with the best peer on disk; "
        "each the median of the ratios of the rounds."
    )
    return "\n".join(["## Ratios", "", note, "", report.table(["", "measured", "wanted", ""], rows)])


def _goal(name: str, value: float, bound: float, unit: str, *, least: bool = False) -> list[str]:
    reached = value >= bound if least else value <= bound
    return [
        name,
        f"{value:.2f} {unit}",
        f"{'≥' if least else '≤'} {bound} {unit}",
        "reached" if reached else "MISSED",
    ]


def _best(flows: Flows, row: str) -> list[Result]:
    """The peer that answers most in a second and has what it answered on disk."""
    peers = [
        results
        for name, results in flows.results[row].items()
        if not name.startswith(ours.NAME) and "memory" not in name
    ]
    return max(peers, key=lambda results: _of(results, "rate"), default=[])


def _ratio(above: list[Result], below: list[Result], figure: str) -> float:
    both = zip(above, below, strict=True)
    return _median([getattr(one, figure) / max(getattr(other, figure), 1e-9) for one, other in both])


def _of(results: list[Result], figure: str) -> float:
    return _median([getattr(one, figure) for one in results])


def median_of(rounds: list[dict[str, float]], figure: str) -> float:
    """The median of a figure, of rounds as a file of results has them."""
    return _median([one[figure] for one in rounds])


def _median(values: list[float]) -> float:
    return statistics.median(values)
