"""`pylon-oidc clients`: manages the programs that may sign users in through the app."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, BinaryIO, Final

import click

from service.cli.client_keys import client_keys
from service.cli.common import configured_store, fail, json_option, print_rows, wide_option
from service.cli.invitations import invitations, invite, uninvite
from service.clients import ClientExists, ClientReadOnly, Clients
from service.keys.file import check_mode
from service.keys.material import KeyFault
from service.presets import Preset, plain_url, presets, recognise
from service.protocol.clients import InvalidClientMetadata, MintedAudienceMissing
from service.records.clients import Client
from service.settings import platform_port, read_settings
from service.settings.carried import carried, without_newline
from service.settings.cross_checks import no_minted_audience

#: Member -> its type, by its annotation; `scope` is text with spaces.
_KINDS: Final = {member.name: str(member.type) for member in fields(Client)} | {"scope": "str"}


@click.group()
def clients() -> None:
    """Register and manage clients."""


clients.add_command(client_keys)


@contextlib.contextmanager
def _directory() -> Iterator[Clients]:
    settings = read_settings().settings
    # Without an audience for minted tokens no client can be added, but existing ones can be shown and removed.
    with configured_store(
        *("PYLON_OIDC_CLIENTS", "PYLON_OIDC_SCOPES", "PYLON_JWT_AUDIENCE", "PYLON_POLICIES"),
        but=[no_minted_audience(settings)],
    ) as store:
        try:
            yield Clients.of(settings, store)
        except MintedAudienceMissing as error:
            fail(str(error))
        except InvalidClientMetadata as error:
            raise click.UsageError(str(error)) from None
        except ClientExists:
            fail("A client with this id already exists.")
        except ClientReadOnly:
            fail("This client is in PYLON_OIDC_CLIENTS, or known by its document; change it there.")


def _url(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return plain_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class _Application(click.Choice[str]):
    """One of the presets, without the list of them in the usage."""

    def __init__(self) -> None:
        super().__init__(list(presets()))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return a short name: there are too many presets for one line."""
        return "NAME"


@clients.command("add", short_help="Register a client and print its secret.")
@click.option(
    "--redirect-uri", "redirect_uris", multiple=True, help="A redirect URI of the client; may be repeated."
)
@click.option("--preset", type=_Application(), help=f"A well-known application: {', '.join(presets())}.")
@click.option("--url", callback=_url, help="The address of that application, as its users see it.")
@click.option("--name", "client_name", help="The name that users see.")
@click.option("--client-id", help="Your own id for it; created if left out.")
@click.option("--public", is_flag=True, help="It cannot keep a secret: an app on a device, or in a browser.")
@click.option("--first-party", is_flag=True, help="It belongs to the app: users are not asked for consent.")
@click.option("--scope", help="The scopes that it may have, separated by spaces; all if left out.")
@click.option(
    "--post-logout-redirect-uri", "post_logout_redirect_uris", multiple=True, help="Where sign-out goes."
)
@click.option(
    "--secret-file",
    type=click.File("rb"),
    metavar="FILE",
    help="Its existing secret, in this file; created if left out.",
)
@click.option("--metadata", help="Further members, as a JSON object.")
@json_option
def add_client(
    *,
    metadata: str | None,
    secret_file: BinaryIO | None,
    public: bool,
    preset: str | None,
    url: str | None,
    as_json: bool,
    **members: Any,
) -> None:
    """Register a client; its secret is printed only now."""
    application = _application(preset, url)
    given = {} if application is None else application.client(url or "")
    given |= _members(members, public=public, metadata=metadata, secret_file=secret_file)
    kinds = given.get("grant_types", ["authorization_code"])
    if "redirect_uris" not in given and isinstance(kinds, list) and "authorization_code" in kinds:
        raise click.UsageError("The redirect URI is missing. Write --redirect-uri, or --preset with --url.")
    with _directory() as directory:
        client, secret = directory.add(given, now=int(time.time()))
        shown = client.public_metadata() | ({} if secret is None else {"client_secret": secret})
        paste = None
        if application is not None:
            _say_what_lacks()
            known = {
                "client_id": client.client_id,
                "client_secret": secret
                or str("<the one in your file>" if secret_file is not None else given.get("client_secret")),
            }
            paste = application.at_other_side(url=url or "", issuer=_issuer(), **known)
        if as_json:
            click.echo(json.dumps(shown | ({} if paste is None else {"paste": paste}), indent=2))
            return
        click.echo(f"client_id      {client.client_id}")
        if secret is not None:
            click.echo(f"client_secret  {secret}")
        if application is not None:
            click.echo(f"\nAt {application.title}, write:\n\n{paste}")
        for redirect_uri in client.redirect_uris if application is None else ():
            _hint(redirect_uri)


def _members(
    options: Mapping[str, Any], *, public: bool, metadata: str | None, secret_file: BinaryIO | None
) -> dict[str, Any]:
    """The client's metadata from the options."""
    given = {
        name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value
    }
    if public:
        given["token_endpoint_auth_method"] = "none"
    given |= _json_object(metadata, "--metadata")
    if secret_file is not None:
        if public or "client_secret" in given:
            raise click.UsageError(
                "--secret-file gives the secret: leave out --public, and client_secret in --metadata."
            )
        given["client_secret"] = _secret_in(secret_file)
    return given


def _application(preset: str | None, url: str | None) -> Preset | None:
    if preset is None:
        if url is not None:
            raise click.UsageError("--url is given without --preset. Write --preset too, or leave --url out.")
        return None
    application = presets()[preset]
    if application.needs_url and url is None:
        raise click.UsageError(
            "The address of the application is missing. Write --url https://app.example.com."
        )
    return application


def _say_what_lacks() -> None:
    """Warn if these settings do not allow anyone to sign in with what is printed."""
    settings = read_settings().settings
    lacks = []
    if settings.issuer is None and not settings.dev_mode:
        lacks.append(
            f"PYLON_OIDC_ISSUER is unset: instead of {_issuer()}, write the address at which users see this service"
        )
    if not settings.has_private_key:
        lacks.append("there is no key to sign with: start the service with PYLON_OIDC_KEYS=managed")
    if settings.login_url is None and not settings.dev_mode:
        lacks.append("PYLON_LOGIN_URL is unset: the service needs the address of your sign-in page")
    for lack in lacks:
        click.echo(f"warning: {lack}", err=True)


def _issuer() -> str:
    """The issuer that the other program must use; that of dev mode if none is set."""
    return read_settings().settings.issuer or f"http://localhost:{platform_port() or 4321}"


def _hint(redirect_uri: str) -> None:
    """Name the application that uses such a redirect URI, because it may need more than that."""
    found = recognise(redirect_uri)
    if found is not None:
        application, url = found
        click.echo(
            f"This is the address of {application.title}. For its other members, and what to write there: "
            f"--preset {application.name} --url {url}",
            err=True,
        )


@clients.command("update", short_help="Change members of a client.")
@click.argument("client_id")
@click.option(
    "--set", "changes", multiple=True, metavar="MEMBER=VALUE", help="A member's new value; may be repeated."
)
@click.option("--metadata", "file", type=click.File("rb"), help="A file with the new values, a JSON object.")
@json_option
def update_client(client_id: str, *, changes: tuple[str, ...], file: BinaryIO | None, as_json: bool) -> None:
    """Change members of a client; the others, and its secret, stay."""
    if bool(changes) == (file is not None):
        raise click.UsageError("Write --set MEMBER=VALUE, or --metadata FILE.")
    given = dict(map(_change, changes)) if file is None else _json_object(_text(file), "The file")
    with _directory() as directory:
        updated = directory.update(client_id, given, now=int(time.time()))
        if updated is None:
            fail("There is no such client.")
        before, shown = (client.public_metadata() for client in updated)
        if as_json:
            click.echo(json.dumps(shown, indent=2))
            return
        for name in sorted(before.keys() | shown.keys()):
            if before.get(name) != shown.get(name):
                click.echo(f"{name}  {json.dumps(shown.get(name))}")


def _text(file: BinaryIO) -> str:
    try:
        return file.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError("--metadata: the file is not UTF-8. Save it as UTF-8 text.") from None


def _change(text: str) -> tuple[str, Any]:
    """Parse a member and its value: plain text for text members, otherwise JSON or a short list."""
    member, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError("--set is malformed. Write --set MEMBER=VALUE.")
    if not value:
        return member, None  # back to its default
    kind = _KINDS.get(member, "str")
    if kind.startswith("str"):
        return member, value
    with contextlib.suppress(ValueError, RecursionError):
        return member, json.loads(value)
    words = re.split(r"[\s,]+", value.strip())
    if kind.startswith("tuple"):
        return member, words
    if kind.startswith("Mapping"):
        return member, dict(word.split("=", 1) for word in words if "=" in word)
    return member, value


def _secret_in(file: BinaryIO) -> str:
    """The secret in an open file, read in the same way as a setting's `NAME_FILE`."""
    try:
        check_mode(file.fileno(), "write --secret-file - and pipe it")
    except KeyFault as fault:
        click.echo(f"warning: --secret-file: {fault}", err=True)
    try:
        secret = without_newline(file.read())
    except UnicodeDecodeError:
        raise click.UsageError("--secret-file: the file is not UTF-8. Save it as UTF-8 text.") from None
    if added := carried(secret):
        raise click.UsageError(f"--secret-file: the file's text {added}")
    return secret


def _json_object(text: str | None, what: str) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise click.UsageError(f"{what} is not a JSON object.")
    return value


@clients.command("list")
@wide_option
@json_option
def list_clients(*, wide: bool, as_json: bool) -> None:
    """List the clients of the environment and of the database."""
    with _directory() as directory:
        rows = [client.public_metadata() for client in directory.list(now=int(time.time()))]
    columns = ["client_id", "client_name", "source", "token_endpoint_auth_method", "first_party"]
    filled = rows if as_json else [{column: row.get(column) for column in columns} for row in rows]
    print_rows(
        filled,
        columns,
        name="clients",
        as_json=as_json,
        wide=wide,
        headings={"token_endpoint_auth_method": "authentication"},
    )


@clients.command("show")
@click.argument("client_id")
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: the output is always JSON.")
def show_client(client_id: str) -> None:
    """Print a client's metadata, never its secret."""
    with _directory() as directory:
        client = directory.registered(client_id, now=int(time.time()))
        if client is None:
            fail("There is no such client.")
        click.echo(json.dumps(client.public_metadata(), indent=2))


@clients.command("rotate-secret", short_help="Give a client a new secret.")
@click.argument("client_id")
@json_option
def rotate_secret(client_id: str, *, as_json: bool) -> None:
    """Give a client a new secret; the old one is valid for another hour."""
    with _directory() as directory:
        secret = directory.rotate_secret(client_id, now=int(time.time()))
        if secret is None:
            fail("There is no such client with a secret.")
        if as_json:
            click.echo(json.dumps({"client_id": client_id, "client_secret": secret}, indent=2))
            return
        click.echo(f"client_secret  {secret}")


@clients.command("remove", short_help="Remove a client.")
@click.argument("client_id")
def remove_client(client_id: str) -> None:
    """Remove a client; its tokens stop working immediately."""
    with _directory() as directory:
        if not directory.remove(client_id, now=int(time.time())):
            fail("There is no such client.")
        click.echo("Removed.")


for command in (invite, invitations, uninvite):
    clients.add_command(command)
