"""`python -m apps [NAME …]`: run applications one at a time, and print a table of what was seen."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
import time
import traceback
from datetime import UTC, datetime

import apps
from apps.application import Application, Seen, SignOut, Tried
from apps.installing import Missing, python
from tests.support.gunicorn import PROJECT

BEGIN, END = "<!-- last run: written by make apps -->", "<!-- end of the last run -->"
COLUMNS = ("name", "email", "groups", "refresh", "sign_out", "rotation")


def tried() -> dict[str, Tried]:
    """Everything of this package that is tried, by name."""
    modules = (
        importlib.import_module(f"apps.{found.name}")
        for found in pkgutil.iter_modules(apps.__path__)
        if found.name != "__main__"
    )
    return dict(sorted((one.name, one) for module in modules for one in getattr(module, "APPS", ())))


def applications() -> dict[str, Application]:
    """Every application among it."""
    return {name: one for name, one in tried().items() if isinstance(one, Application)}


def main() -> int:
    """Run those that are named, or all; 1 where one did not work."""
    known = tried()
    parser = argparse.ArgumentParser(prog="python -m apps", description=__doc__)
    parser.add_argument(
        "--install",
        action="store_true",
        help="only install what `make test` runs: the light ones, and agents",
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/apps/README.md")
    parser.add_argument("names", nargs="*", choices=[*known, []], metavar="NAME", help=", ".join(known))
    options = parser.parse_args()
    if options.install:
        for one in known.values():
            if one.light:
                one.version()
        python("mcp")  # for tests/flows/test_mcp.py
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end what was started
    names = options.names or list(known)
    seen: dict[str, Seen | str] = {}
    for name in names:
        print(f"{name} …", flush=True)
        begun = time.monotonic()
        try:
            seen[name] = known[name].see()
        except Missing as missing:
            seen[name] = f"not run: {missing}"
        except Exception as failure:
            traceback.print_exc()
            seen[name] = f"failed: {type(failure).__name__}"
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    print("\n" + table(seen))
    if options.write:
        _write(table({name: found for name, found in seen.items() if isinstance(found, Seen)}).splitlines())
    return int(any(isinstance(found, str) for found in seen.values()))


def _write(lines: list[str]) -> None:
    """Put the rows into the page, each with its day; those of applications that were not seen stay."""
    page = PROJECT / "docs/apps/README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    kept, _, after = rest.partition(END)
    today = datetime.now(UTC).date()
    rows = {line.split("|")[1].strip(): line for line in kept.splitlines() if line.startswith("| ")}
    head = [f"{lines[0]} seen on |", f"{lines[1]} --- |"]
    rows = {name: row for name, row in rows.items() if name not in {"Application", "---"}}
    rows |= {line.split("|")[1].strip(): f"{line} {today} |" for line in lines[2:]}
    page.write_text("\n".join([before + BEGIN, *head, *(rows[name] for name in sorted(rows)), END + after]))


def table(seen: dict[str, Seen | str]) -> str:
    """What was seen, as a table in Markdown."""
    lines = ["| Application | Version | " + " | ".join(column.replace("_", " ") for column in COLUMNS) + " |"]
    lines.append("| --- " * (2 + len(COLUMNS)) + "|")
    for name, found in seen.items():
        if isinstance(found, str):
            lines.append(f"| {name} | {found} |" + " |" * len(COLUMNS))
        else:
            cells = [_cell(getattr(found, column)) for column in COLUMNS]
            lines.append(f"| {name} | {found.version} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: bool | SignOut | None) -> str:
    if isinstance(found, SignOut):
        return found.value
    return "yes" if found else "–"


if __name__ == "__main__":
    sys.exit(main())
