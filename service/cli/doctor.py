"""`pylon-oidc doctor`: tests a deployment from outside like a relying party, and explains what is wrong."""

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

if TYPE_CHECKING:  # modules that only this command needs are imported when it runs
    from service.doctor.evidence import Evidence, Options
    from service.doctor.report import Report

_COULD_NOT_ASK: Final = 2
_WATCH_S: Final = 15
#: The height in lines if the output is a file or a pipe, which has no limit.
_NO_END: Final = 10**6
#: The time for all requests, in s; if answers arrive slowly, there is more.
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
    """The names of the proxies, loaded only when they are needed."""

    def __init__(self) -> None:
        super().__init__(("nginx", "apache", "haproxy", "caddy", "traefik", "aws-alb", "varnish"))


def _explain(context: click.Context, _parameter: click.Parameter, id_: str | None) -> None:
    """Print the page of a finding, and exit."""
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
@click.option("--redirect-uri", help="A redirect URI that this client has registered.")
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


#: Findings that mean that nothing could be reached.
_NOBODY: Final = frozenset({"dns", "refused", "unroutable", "timeout"})


def _secret(file: Path | None) -> str | None:
    """The content of the file, as a value for a header."""
    if file is None:
        return None
    text = file.read_text("utf-8", "replace").rstrip("\r\n")
    if not text.isascii() or not text.isprintable() or not text or " " in text:
        raise click.UsageError(
            f"{file} has no usable secret; write it as one line of visible ASCII characters"
        )
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
            raise click.UsageError(
                "--source is not an IP address; write an address of this machine, such as 192.0.2.7"
            ) from None
    if (told["admin_url"] is None) != (told["admin_token"] is None):
        raise click.UsageError(
            "--admin-url is given without --admin-token-file, or the other way round; write both"
        )
    options = Options(normalised(url), **told)
    if told["admin_url"] is not None and options.inside is None:
        raise click.UsageError(
            "--admin-url is not a usable address; write it like http://127.0.0.1:4321 or "
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
    """Send all requests, and show the progress on a terminal."""
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
    """The proxies in between, if the answers show them."""
    found = dict.fromkeys(
        name
        for question in ("probe", "discovery", "token")
        if (reply := evidence.reply(question)) is not None
        for sign, name in _SIGNS.items()
        if sign
        in f"{reply.header('server')} {reply.header('via')} {reply.header('x-varnish') and 'varnish'}".lower()
    )
    return tuple(found)


#: Text in `Server` and `Via` -> the proxy.
_SIGNS: Final = {
    "varnish": "varnish",
    "nginx": "nginx",
    "apache": "apache",
    "caddy": "caddy",
    "haproxy": "haproxy",
    "traefik": "traefik",
    "awselb": "aws-alb",
}
#: Paths that people paste when they mean the address of the service.
_PASTED: Final = re.compile(
    r"/\.well-known/(?:openid-configuration|oauth-authorization-server)/*|/\.well-known/jwks\.json"
    r"|/oidc/(?:authorize|token|jwks|userinfo|introspect|revoke|logout)|/healthz|/readyz"
)


def normalised(url: str) -> str:
    """The address in the form of an issuer: no slash at the end, the name in lower case, no default port.

    The address of an endpoint is reduced to that of its issuer.

    Raises:
        click.UsageError: if it is not an http or https address.
    """
    from service.doctor.reply import Origin

    text = url if "://" in url else f"https://{url}"
    origin = Origin.of(text)
    rest = text.partition("://")[2].partition("/")[2]
    if origin is None or not text.isascii() or not text.isprintable() or any(c in text for c in "?#\\ "):
        raise click.UsageError("URL is not an http or https address; write it like https://id.example.com")
    return f"{origin}{_without_endpoint(f'/{rest}')}"


def _without_endpoint(path: str) -> str:
    """The issuer's path: the given path without that of an endpoint (which RFC 8414 §3.1 puts in front)."""
    path = path.rstrip("/")
    found = next(
        (each for each in _PASTED.finditer(path) if each.end() == len(path) or each.start() == 0), None
    )
    if found is None:
        return path
    return (path[: found.start()] + "/" + path[found.end() :]).rstrip("/")


def _elsewhere(entries: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Name and port -> where to connect instead. A name may have several addresses."""
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in entries:
        parts = entry.rsplit(":", 2)
        if len(parts) != 3 or not parts[2].isdigit() or ":" not in parts[0]:
            raise click.UsageError(
                "--connect-to is malformed; write NAME:PORT:HOST:PORT, such as id.example.com:443:10.0.0.7:8443"
            )
        found.setdefault(parts[0].lower(), []).append((parts[1].strip("[]"), int(parts[2])))
    return found


@dataclass(frozen=True)
class PublicDocuments:
    """The answers of an address.

    Attributes:
        url: the address, in the form of an issuer.
        discovery: its discovery document.
        jwks: its key set.
        takes_encoded: whether it answers a path with a percent-encoded letter.
    """

    url: str
    discovery: Mapping[str, Any]
    jwks: list[Any]
    takes_encoded: bool


def public_documents(url: str, ca: Path | None, connect_to: tuple[str, ...]) -> PublicDocuments:
    """Fetch the documents of an address.

    Raises:
        SystemExit: if it cannot be reached, or has no document.
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
