"""The documentation of doctor's findings, made from the same data: a page a finding, an index, and the texts of clients' errors.

python -m tests.docs.doctor_pages docs
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.doctor.catalogue import Kind, kinds
from service.doctor.pages import page_of


def pages() -> Mapping[str, str]:
    """The text of each page, by its path below `docs/`."""
    found = {f"doctor/{id_}.md": f"{page_of(id_)}\n" for id_ in kinds()}
    return found | {"doctor/README.md": "\n".join(_index()) + "\n", "troubleshooting.md": _troubleshooting()}


def _index() -> Iterator[str]:
    yield "# What doctor finds\n"
    yield (
        "`pylon-oidc doctor URL` tests a deployment from outside, as a relying party does, and names the line to "
        "change ([how to run it](../cli.md#pylon-oidc-doctor)). These pages are generated from its own data.\n\n"
        "The tests break deployments with nginx, Apache, HAProxy, Caddy and Varnish, and fix them with the lines on "
        "these pages. A line that no test runs is marked. No test runs Traefik and the load balancer of AWS: their "
        "lines follow their documentation. Files of nginx have the names of the repository: `nginx/…` is "
        "`/etc/nginx/pylon-oidc/…` on a machine where you [installed the site](../nginx.md#install).\n"
    )
    yield "| Finding | Severity | Meaning |"
    yield "| --- | --- | --- |"
    for kind in kinds().values():
        yield f"| [`{kind.id}`]({kind.id}.md) | {kind.severity} | {kind.title} |"


def _troubleshooting() -> str:
    causes: dict[str, list[Kind]] = {}
    for kind in kinds().values():
        for symptom in kind.symptoms:
            causes.setdefault(symptom, []).append(kind)
    lines = [
        "# Troubleshooting, by the text of the error",
        "",
        "Error messages of clients, and their possible causes. `pylon-oidc doctor URL` finds out which one it is.",
        "",
        "| Message | Possible causes |",
        "| --- | --- |",
    ]
    for symptom, found in sorted(causes.items(), key=lambda item: item[0].lower()):
        links = "; ".join(f"[{kind.title}](doctor/{kind.id}.md)" for kind in found)
        lines.append(f"| `{symptom.replace('|', chr(92) + '|')}` | {links} |")
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write the pages, and remove those of findings that are no more.

    Args:
        folder: `docs/`.
    """
    made = pages()
    (folder / "doctor").mkdir(exist_ok=True)
    for old in (folder / "doctor").glob("*.md"):
        if f"doctor/{old.name}" not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
