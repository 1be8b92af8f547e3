"""The page of a finding, made from the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from service.doctor.catalogue import Fix, Kind, kinds

_SETTINGS: Final = "the environment of the service, [settings](../settings.md)"
_FOR: Final[Mapping[str, str]] = {
    "varnish": "Varnish",
    "nginx": "nginx",
    "apache": "Apache",
    "haproxy": "HAProxy",
    "caddy": "Caddy",
    "traefik": "Traefik",
    "aws-alb": "AWS load balancer",
    "system": "On the machine",
    "dns": "In the DNS",
}
_PLACES: Final[Mapping[str, str]] = {
    "url": "https://id.example.com",
    "origin": "https://id.example.com",
    "name": "id.example.com",
    "path": "",
    "port": "443",
    "address": "192.0.2.7",
    "endpoint": "/oidc/token",
    "authority": "id.example.com",
    "record": "A",
    "path_below": "",
    "inside_nginx": "unix:/run/pylon-oidc/gunicorn.sock",
    "inside_apache": "unix:/run/pylon-oidc/gunicorn.sock|http://localhost/",
    "inside_haproxy": "unix@/run/pylon-oidc/gunicorn.sock",
    "inside_caddy": "unix//run/pylon-oidc/gunicorn.sock",
    "client": "wiki",
    "keys_host": "wiki.internal",
}


def page_of(id_: str) -> str | None:
    """The page of a finding; None if there is no finding of that name."""
    kind = kinds().get(id_)
    return None if kind is None else "\n".join(_page(kind))


def _filled(text: str) -> str:
    for name, value in _PLACES.items():
        text = text.replace("{" + name + "}", value)
    return text


def _page(kind: Kind) -> Iterator[str]:
    yield f"# {kind.title}"
    yield f"\n`{kind.id}`, {_article(kind.severity)} of [`pylon-oidc doctor`](README.md).\n"
    if kind.symptoms:
        yield "## Symptoms\n"
        yield from (f"- `{symptom}`" for symptom in kind.symptoms)
        yield ""
    yield f"## Cause\n\n{kind.cause}\n"
    if kind.cases:
        yield "In detail, depending on what doctor saw:\n"
        yield from (f"- {_filled(text)}" for text in kind.cases.values())
        yield ""
    if kind.expected:
        yield f"## Expected\n\n{_sentence(_filled(kind.expected))}\n"
    if kind.fixes:
        yield "## Fix\n"
        for fix in kind.fixes:
            yield from _fix(fix)
    if kind.verify:
        yield f"## Verify\n\n```sh\n{_filled(kind.verify)}\n```\n"
        yield "Then run doctor again."
    else:
        yield "There is nothing to fix."


def _article(severity: str) -> str:
    return f"an {severity}" if severity == "error" else f"a {severity}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _fix(fix: Fix) -> Iterator[str]:
    line = _filled(fix.line)
    action = "remove every line that starts with" if line.startswith("- ") else "write"
    if fix.proxy == "setting":
        yield f"In the settings ({_SETTINGS}), {action}:"
    elif not fix.file:
        yield f"{_FOR[fix.proxy]}, with the service's settings, run:"
    else:
        place = f"`{_filled(fix.file)}`" + (f", in `{_filled(fix.block)}`" if fix.block else "")
        yield f"{_FOR[fix.proxy]}: in {place}, {action}:"
    yield f"\n```\n{line.removeprefix('- ')}\n```\n"
    if not fix.tested:
        yield "(No test runs this line.)\n"
