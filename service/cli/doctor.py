"""`pylon-oidc doctor`: a deployment, asked from outside as a relying party asks it, and what is wrong with it."""

from __future__ import annotations

import ipaddress
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
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
PROXIES: Final = ("nginx", "apache", "haproxy", "caddy", "traefik", "aws-alb")
_file_option = click.Path(exists=True, dir_okay=False, path_type=Path)
ca_option = click.option("--ca", type=_file_option, help="Further certificate authorities (PEM).")
connect_to_option = click.option(
    "--connect-to",
    "connect_to",
    multiple=True,
    metavar="NAME:PORT:HOST:PORT",
    help="Connect elsewhere for this name and port; all else stays as it is. May be repeated.",
)


@click.command()
@click.argument("url")
@click.option("--client-id", help="A client to begin a sign-in for.")
@click.option("--client-secret-file", type=_file_option, help="Its secret, in a file.")
@click.option("--redirect-uri", help="One that this client has registered.")
@click.option(
    "--session-file", type=_file_option, help="A session token, in a file: tokens are minted with it."
)
@click.option("--admin-url", help="The application from inside: a session is made there, and ended again.")
@click.option("--admin-token-file", type=_file_option, help="The admin token, in a file.")
@ca_option
@connect_to_option
@click.option("--proxy", type=click.Choice(PROXIES), help="What stands in front: whose line to name first.")
@click.option("--source", metavar="ADDRESS", help="Ask from this address of the machine.")
@click.option(
    "--timeout", type=click.FloatRange(1, 120), default=10.0, show_default=True, help="Of all, in s."
)
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file."
)
@click.option("--watch", is_flag=True, help="Ask again and again, until interrupted.")
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
    """Ask the deployment at URL, from outside, why relying parties refuse it.

    Exit code: 0 nothing but notes, 1 findings, 2 it could not be asked.
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
            for line in report.as_text(shutil.get_terminal_size().columns):
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
    """What the file holds, as it can stand in a header."""
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
    timeout: float,
    **told: Any,
) -> Callable[[], tuple[Evidence, Report]]:
    from service.doctor.evidence import Options
    from service.doctor.wire import Origin, Wire

    if source is not None:
        try:
            ipaddress.ip_address(source)
        except ValueError:
            raise click.UsageError("--source is an address of this machine, as 192.0.2.7") from None
    if (told["admin_url"] is None) != (told["admin_token"] is None):
        raise click.UsageError("--admin-url and --admin-token-file are given together")
    if told["admin_url"] is not None and Origin.of(told["admin_url"]) is None:
        raise click.UsageError(
            "--admin-url is no address that can be asked; write it as http://127.0.0.1:4321"
        )
    options = Options(normalised(url), **told)
    elsewhere = dict(map(_elsewhere, connect_to))

    def ask() -> tuple[Evidence, Report]:
        wire = Wire(time.monotonic() + timeout, time.time, elsewhere, source, None if ca is None else str(ca))
        return examined(options, wire, proxy)

    return ask


def examined(options: Options, wire: Any, proxy: str | None = None) -> tuple[Evidence, Report]:
    """Ask everything, with a word on a terminal about how far it is."""
    from service.doctor.catalogue import shown
    from service.doctor.evidence import Interview
    from service.doctor.report import Report
    from service.doctor.rules import examine

    is_seen = sys.stderr.isatty()

    def progress(name: str) -> None:
        if is_seen:
            click.echo(f"\r\x1b[K{name} …", err=True, nl=False)

    evidence = Interview(options, wire, progress).run()
    if is_seen:
        click.echo("\r\x1b[K", err=True, nl=False)
    issuer = None if evidence.issuer is None else shown(evidence.issuer)
    report = Report(
        options.url,
        issuer,
        proxy or _proxy(evidence),
        len(evidence.answers),
        examine(evidence),
        int(time.time()),
    )
    return evidence, report


def _proxy(evidence: Evidence) -> str:
    """What stands in front, as far as its answers tell."""
    reply = evidence.reply("probe") or evidence.reply("discovery")
    server = "" if reply is None else reply.header("server").lower()
    return next((name for name in ("apache", "caddy", "haproxy") if name in server), "nginx")


def normalised(url: str) -> str:
    """The address as an issuer is written: no slash at its end, the name in lower case, no default port.

    Raises:
        click.UsageError: when it is no address that can be asked.
    """
    from service.doctor.wire import Origin

    text = url if "://" in url else f"https://{url}"
    origin = Origin.of(text)
    rest = text.partition("://")[2].partition("/")[2]
    if origin is None or not text.isascii() or not text.isprintable() or any(c in text for c in "?#\\ "):
        raise click.UsageError("URL is no address that can be asked; write it as https://id.example.com")
    return f"{origin}/{rest}".rstrip("/")


def _elsewhere(entry: str) -> tuple[str, tuple[str, int]]:
    parts = entry.rsplit(":", 2)
    if len(parts) != 3 or not parts[2].isdigit() or ":" not in parts[0]:
        raise click.UsageError("--connect-to is NAME:PORT:HOST:PORT, as id.example.com:443:10.0.0.7:8443")
    return parts[0].lower(), (parts[1].strip("[]"), int(parts[2]))


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
    from service.doctor.evidence import DISCOVERY, Options
    from service.doctor.wire import Wire, WireError

    asked = Options(normalised(url))
    wire = Wire(
        time.monotonic() + 10,
        time.time,
        dict(map(_elsewhere, connect_to)),
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
