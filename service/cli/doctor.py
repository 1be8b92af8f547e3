"""`pylon-oidc doctor`: a deployment, asked from outside as a relying party asks it, and what is wrong with it."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli.common import FAILED, json_option

if TYPE_CHECKING:  # what only this command needs is imported when it runs
    from service.doctor.evidence import Evidence, Options
    from service.doctor.report import Report

_COULD_NOT_ASK: Final = 2
_WATCH_S: Final = 15
#: Lines of a file or a pipe, which is as tall as it needs to be.
_NO_END: Final = 10**6
#: Of all that is asked, in s; where answers come, but slowly, there is more.
_TIMEOUT_S: Final = 10.0
_file_option = click.Path(exists=True, dir_okay=False, path_type=Path)
ca_option = click.option("--ca", type=_file_option, help="Further certificate authorities (PEM).")
connect_to_option = click.option(
    "--connect-to",
    "connect_to",
    multiple=True,
    metavar="NAME:PORT:HOST:PORT",
    help="Connect to that host for this name and port; all else stays the same. May be repeated.",
)


class _Proxy(click.Choice[str]):
    """The names of the proxies; nothing else of the command line needs to read them."""

    def __init__(self) -> None:
        super().__init__(("nginx", "apache", "haproxy", "caddy", "traefik", "aws-alb", "varnish"))


def _explain(context: click.Context, _parameter: click.Parameter, id_: str | None) -> None:
    """Print the page of a finding, and end."""
    if id_ is None or context.resilient_parsing:
        return
    from service.doctor.pages import page_of

    text = page_of(id_)
    if text is None:
        raise click.UsageError(f"there is no finding {id_!r}; docs/doctor/README.md lists them")
    click.echo(text)
    context.exit()


@click.command(short_help="Test a deployment from outside, and name the line to change.")
@click.argument("url")
@click.option("--client-id", help="A client to start a sign-in for.")
@click.option("--client-secret-file", type=_file_option, help="Its secret, in a file.")
@click.option("--redirect-uri", help="One that this client has registered.")
@click.option(
    "--session-file", type=_file_option, help="A session token, in a file: doctor mints tokens with it."
)
@click.option("--admin-url", help="The application from inside: doctor starts a session there, and ends it.")
@click.option("--admin-token-file", type=_file_option, help="The admin token, in a file.")
@ca_option
@connect_to_option
@click.option("--proxy", type=_Proxy(), help="The proxy in front; findings name its lines.")
@click.option("--source", metavar="ADDRESS", help="Send requests from this address of the machine.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 120),
    help="Time for everything, in s; default 10, or more if answers arrive slowly.",
)
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file."
)
@click.option(
    "--explain",
    metavar="ID",
    is_eager=True,
    expose_value=False,
    callback=_explain,
    help="Print the page of a finding: its cause, what is expected, every line that fixes it.",
)
@click.option("--watch", is_flag=True, help="Repeat until interrupted.")
@json_option
def doctor(
    *,
    url: str,
    client_secret_file: Path | None,
    session_file: Path | None,
    admin_token_file: Path | None,
    page: Path | None,
    watch: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Test the deployment at URL from outside, and explain why relying parties refuse it.

    Exit code: 0 only notes, 1 findings, 2 the deployment could not be reached.
    """
    ask = _prepared(
        url,
        client_secret=_secret(client_secret_file),
        session=_secret(session_file),
        admin_token=_secret(admin_token_file),
        **more,
    )
    while True:
        evidence, report = ask()
        if page is not None:
            page.write_text(report.as_page(), "utf-8")
        if as_json:
            click.echo(json.dumps(report.as_json(), indent=2))
        else:
            for line in report.as_text(*shutil.get_terminal_size((80, _NO_END))):
                click.echo(line)
        if not watch:
            break
        time.sleep(_WATCH_S)
    error = evidence.error("discovery")
    if error is not None and error.kind in _NOBODY and all(map(evidence.error, evidence.answers)):
        raise SystemExit(_COULD_NOT_ASK)
    if not report.is_well:
        raise SystemExit(FAILED)


#: Why nobody could be asked at all.
_NOBODY: Final = frozenset({"dns", "refused", "unroutable", "timeout"})


def _secret(file: Path | None) -> str | None:
    """The content of the file, as a value for a header."""
    if file is None:
        return None
    text = file.read_text("utf-8", "replace").rstrip("\r\n")
    if not text.isascii() or not text.isprintable() or not text or " " in text:
        raise click.UsageError(f"{file} holds no secret: one line of visible ASCII characters is due")
    return text


def _prepared(
    url: str,
    *,
    proxy: str | None,
    connect_to: tuple[str, ...],
    source: str | None,
    ca: Path | None,
    timeout: float | None,
    **told: Any,
) -> Callable[[], tuple[Evidence, Report]]:
    from service.doctor.evidence import Options
    from service.doctor.wire import Wire

    if source is not None:
        try:
            ipaddress.ip_address(source)
        except ValueError:
            raise click.UsageError("--source is an address of this machine, as 192.0.2.7") from None
    if (told["admin_url"] is None) != (told["admin_token"] is None):
        raise click.UsageError("--admin-url and --admin-token-file are given together")
    options = Options(normalised(url), **told)
    if told["admin_url"] is not None and options.inside is None:
        raise click.UsageError(
            "--admin-url is no address that can be asked; write it as http://127.0.0.1:4321, or as "
            "unix:/run/pylon-oidc/gunicorn.sock"
        )
    elsewhere = _elsewhere(connect_to)

    def ask() -> tuple[Evidence, Report]:
        end = time.monotonic() + (timeout or _TIMEOUT_S)
        wire = Wire(end, time.time, elsewhere, source, None if ca is None else str(ca))
        return examined(options, wire, proxy, is_patient=timeout is None)

    return ask


def examined(
    options: Options, wire: Any, proxy: str | None = None, *, is_patient: bool = False
) -> tuple[Evidence, Report]:
    """Ask everything, with a word on a terminal about how far it is."""
    from service.doctor.asking import Asker
    from service.doctor.catalogue import shown
    from service.doctor.interview import Interview
    from service.doctor.report import Report
    from service.doctor.rules import examine

    is_seen = sys.stderr.isatty()

    def progress(name: str) -> None:
        if is_seen:
            click.echo(f"\r\x1b[K{name} …", err=True, nl=False)

    evidence = Interview(Asker(options, wire, progress, is_patient=is_patient)).run()
    if is_seen:
        click.echo("\r\x1b[K", err=True, nl=False)
    issuer = None if evidence.issuer is None else shown(evidence.issuer)
    report = Report(
        options.url,
        issuer,
        proxy,
        _in_between(evidence),
        len(evidence.answers),
        examine(evidence),
        int(time.time()),
    )
    return evidence, report


def _in_between(evidence: Evidence) -> tuple[str, ...]:
    """What is in between, if the answers show it."""
    found = dict.fromkeys(
        name
        for question in ("probe", "discovery", "token")
        if (reply := evidence.reply(question)) is not None
        for sign, name in _SIGNS.items()
        if sign
        in f"{reply.header('server')} {reply.header('via')} {reply.header('x-varnish') and 'varnish'}".lower()
    )
    return tuple(found)


#: What is said in `Server` and `Via` -> what it is.
_SIGNS: Final = {
    "varnish": "varnish",
    "nginx": "nginx",
    "apache": "apache",
    "caddy": "caddy",
    "haproxy": "haproxy",
    "traefik": "traefik",
    "awselb": "aws-alb",
}
#: What people paste who mean the address of the service.
_PASTED: Final = re.compile(
    r"/\.well-known/(?:openid-configuration|oauth-authorization-server)/*|/\.well-known/jwks\.json"
    r"|/oidc/(?:authorize|token|jwks|userinfo|introspect|revoke|logout)|/healthz|/readyz"
)


def normalised(url: str) -> str:
    """The address as an issuer is written: no slash at its end, the name in lower case, no default port.

    A pasted address of one of its endpoints stands for it.

    Raises:
        click.UsageError: when it is no address that can be asked.
    """
    from service.doctor.reply import Origin

    text = url if "://" in url else f"https://{url}"
    origin = Origin.of(text)
    rest = text.partition("://")[2].partition("/")[2]
    if origin is None or not text.isascii() or not text.isprintable() or any(c in text for c in "?#\\ "):
        raise click.UsageError("URL is no address that can be asked; write it as https://id.example.com")
    return f"{origin}{_without_endpoint(f'/{rest}')}"


def _without_endpoint(path: str) -> str:
    """The path of an issuer: of what was pasted, the part that is no endpoint's (RFC 8414 §3.1 has it in front)."""
    path = path.rstrip("/")
    found = next(
        (each for each in _PASTED.finditer(path) if each.end() == len(path) or each.start() == 0), None
    )
    if found is None:
        return path
    return (path[: found.start()] + "/" + path[found.end() :]).rstrip("/")


def _elsewhere(entries: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Name and port -> the places to connect to instead; several for one name are its addresses."""
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in entries:
        parts = entry.rsplit(":", 2)
        if len(parts) != 3 or not parts[2].isdigit() or ":" not in parts[0]:
            raise click.UsageError("--connect-to is NAME:PORT:HOST:PORT, as id.example.com:443:10.0.0.7:8443")
        found.setdefault(parts[0].lower(), []).append((parts[1].strip("[]"), int(parts[2])))
    return found


@dataclass(frozen=True)
class PublicDocuments:
    """What an address answers.

    Attributes:
        url: itself, as an issuer is written.
        discovery: its document.
        jwks: its keys.
        takes_encoded: whether it answers a path in which a letter is encoded.
    """

    url: str
    discovery: Mapping[str, Any]
    jwks: list[Any]
    takes_encoded: bool


def public_documents(url: str, ca: Path | None, connect_to: tuple[str, ...]) -> PublicDocuments:
    """Ask an address for its documents.

    Raises:
        SystemExit: when it cannot be asked, or has no document.
    """
    from service.doctor.evidence import Options
    from service.doctor.interview import DISCOVERY
    from service.doctor.reply import WireError
    from service.doctor.wire import Wire

    asked = Options(normalised(url))
    wire = Wire(
        time.monotonic() + 10,
        time.time,
        _elsewhere(connect_to),
        ca=None if ca is None else str(ca),
    )
    takes_encoded = False
    try:
        reply = wire.ask(asked.origin, "GET", asked.path + DISCOVERY)
        document = reply.json_object() if reply.status == 200 else {}
        keys = wire.ask(asked.origin, "GET", f"{asked.path}/oidc/jwks").json_object().get("keys")
        encoded = wire.ask(asked.origin, "GET", f"{asked.path}/%6Fidc/jwks")
        takes_encoded = encoded.status == 200 and "keys" in encoded.json_object()
    except (WireError, TimeoutError):
        document, keys = {}, None
    if not document:
        click.echo(
            f"{asked.url} has no discovery document; pylon-oidc doctor {asked.url} says why.", err=True
        )
        raise SystemExit(_COULD_NOT_ASK)
    return PublicDocuments(asked.url, document, keys if isinstance(keys, list) else [], takes_encoded)
