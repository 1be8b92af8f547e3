"""One parser for each setting: takes its text and returns its value, or says what is wrong.

A parser raises ValueError("what is wrong; what to write instead"). No message contains the value of a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from joserfc.jwk import OctKey, RSAKey

from service import issuer as issuers
from service.keys import material as keys
from service.keys.algorithms import ASYMMETRIC_ALGS, in_order
from service.keys.file import read_key_file
from service.keys.sealing import KEY_BYTES, SealingKeys
from service.keys.strength import WeakKey, check_exponent
from service.policies.values import Policies
from service.protocol.clients import client_faults, is_client_id, parse_client
from service.records.clients import Client
from service.records.scopes import (
    MOST_OWN,
    STANDARD_SCOPES,
    InvalidScope,
    OwnScope,
    Scopes,
    parse_own_scope,
)

Word = TypeVar("Word", bound=str)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_STANDARD_BASE64 = str.maketrans("-_", "+/")


#: The default algorithm of tokens, and their default lifetime in s.
DEFAULT_MINT_ALG: Final = "HS256"
DEFAULT_MINT_LIFETIME_S: Final = 3600


class FaultsOfAFile(ValueError):
    """Faults in the file that a setting names: for each the line, what is wrong, and what to write instead."""

    def __init__(self, found: Sequence[tuple[int, str]]) -> None:
        super().__init__("\n".join(text for _, text in found))
        self.found = found


class Secret:
    """Bytes that must not be shown: neither `repr` nor `str` contains them."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file of the signing key, and its key; None while the file does not exist yet."""

    path: Path
    key: RSAKey | None


def integer(least: int, most: int, unit: str = "seconds") -> Callable[[str], int]:
    """Only digits, within bounds."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) or not least <= int(value) <= most:
            raise ValueError(
                f"is not a whole number of {unit} from {least} to {most}; write only digits, such as {most}"
            )
        return int(value)

    return parse


def one_of(*choices: Word) -> Callable[[str], Word]:
    """One of these words."""

    def parse(value: str) -> Word:
        if value not in choices:
            raise ValueError(f"is not one of its values; write {' or '.join(choices)}")
        return choices[choices.index(value)]  # the value with the right type

    return parse


def boolean(value: str) -> bool:
    """On or off."""
    try:
        return {"0": False, "1": True, "false": False, "true": True}[value.lower()]
    except KeyError:
        raise ValueError("is not on or off; write 1 or 0") from None


def text(value: str) -> str:
    """One line of text."""
    if not value.isprintable() or len(value) > 255:
        raise ValueError("contains a control character, or more than 255 characters; write one line of text")
    return value


def allowed_hosts(value: str) -> tuple[issuers.AllowedHost, ...]:
    """Hosts, separated by commas."""
    example = "write only names, such as id.example.com,id.example.com:8443,.example.com:*"
    try:
        hosts = tuple(issuers.parse_allowed_host(entry) for entry in issuers.parse_list(value))
    except issuers.InvalidHost:
        raise ValueError(f"an entry is not a host; {example}") from None
    if not hosts:  # an empty list would allow every host
        raise ValueError(f"contains no host; {example}")
    return hosts


def origins(value: str) -> frozenset[str]:
    """Origins, separated by commas."""
    return frozenset(issuers.parse_origin(entry) for entry in issuers.parse_list(value))


def jwt_secret(value: str) -> OctKey:
    """The HS256 key."""
    return keys.load_secret(_utf8(value))


def strong_secret(value: str) -> Secret:
    """A secret that cannot be guessed."""
    secret = _utf8(value)
    keys.check_secret_strength(secret)
    return Secret(secret)


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8; write a random one: openssl rand -hex 32") from None


def admin_token(value: str) -> Secret:
    """A strong secret that can be sent in an `Authorization` header."""
    if not _VISIBLE.fullmatch(value):
        raise ValueError("contains a character that a bearer token cannot have; write: openssl rand -hex 32")
    return strong_secret(value)


def exponent(value: str) -> int:
    """The public exponent of an RSA key, as a Base64urlUInt."""
    number = keys.parse_base64url_uint(value)
    try:
        check_exponent(number)
    except WeakKey as weak:
        raise ValueError(f"{weak}; write AQAB, which is 65537") from None
    return number


def modulus(value: str) -> int:
    """The modulus of an RSA key, as a Base64urlUInt."""
    number = keys.parse_base64url_uint(value)
    keys.load_public_key(number, 65537)
    return number


def key_id(value: str) -> str:
    """A `kid`."""
    if not _VISIBLE.fullmatch(value) or len(value) > 255:
        raise ValueError("is not a key id; write 1 to 255 visible ASCII characters")
    return value


def algs(value: str) -> tuple[str, ...]:
    """Asymmetric algorithms, separated by commas; in our order, each once."""
    wanted = set(issuers.parse_list(value))
    if not wanted or not wanted <= set(ASYMMETRIC_ALGS):
        raise ValueError(
            f"an entry is not a supported algorithm; write one or more of {','.join(ASYMMETRIC_ALGS)}"
        )
    return tuple(in_order(wanted))


def encryption_keys(value: str) -> SealingKeys:
    """Keys of 32 bytes in base64, separated by commas."""
    example = "write 32 random bytes in base64: openssl rand -base64 32"
    secrets = []
    for number, entry in enumerate(value.split(","), 1):
        try:
            bare = entry.strip().translate(_STANDARD_BASE64).rstrip("=")
            secret = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"key {number} is not base64; {example}") from None
        if len(secret) != KEY_BYTES:
            raise ValueError(f"key {number} has {len(secret)} bytes instead of {KEY_BYTES}; {example}")
        if len(set(secret)) < 8:  # random bytes have so few different values once in 10^40 times
            raise ValueError(f"key {number} is a placeholder; {example}")
        if secret in secrets:
            raise ValueError(f"key {number} is there twice; write each key once")
        secrets.append(secret)
    return SealingKeys(tuple(secrets))


def cookie_name(value: str) -> str:
    """A cookie's name (RFC 6265 §4.1.1)."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("is not a cookie name; write only letters, digits, - and _, such as pylon_session")
    return value


def cookie_domain(value: str) -> str:
    """A domain, with or without the dot that RFC 6265 §5.2.3 ignores."""
    try:
        host = issuers.parse_host(value.removeprefix("."))
    except issuers.InvalidHost:
        raise ValueError("is not a domain; write it like example.com") from None
    if host.port is not None or host.name.startswith("[") or host.name[-1].isdigit():
        raise ValueError("is not a domain; write it without a port, such as example.com")
    return host.name


def forwarded_allow_ips(value: str) -> tuple[str, ...]:
    """Addresses, networks or `*`, separated by commas."""
    entries = tuple(issuers.parse_list(value))
    for entry in entries:
        try:
            if entry != "*":
                ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError(
                "an entry is not an IP address or network; write them like 127.0.0.1,10.0.0.0/8"
            ) from None
    return entries


def path(value: str) -> Path:
    """A path, which may not exist yet."""
    if not value.isprintable():
        raise ValueError("contains a control character; write a plain path")
    return Path(value)


def scopes(value: str) -> Scopes:
    """A JSON object of the operator's own scopes. Its faults are one to a line."""
    repeated: list[str] = []

    def pairs(members: list[tuple[str, object]]) -> dict[str, object]:
        repeated.extend(name for name, count in Counter(name for name, _ in members).items() if count > 1)
        return dict(members)

    try:
        entries = json.loads(value, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        entries = None
    example = 'write {"hr": {"claims": ["department"], "description": "see your department"}}'
    if not isinstance(entries, dict):
        raise ValueError(f"is not a JSON object of scopes; {example}")
    if repeated or len(entries) > MOST_OWN:
        raise ValueError(f"has one name twice, or more than {MOST_OWN} scopes; {example}")
    own: dict[str, OwnScope] = {}
    faults: list[str] = []
    for word, entry in entries.items():
        try:
            own[word] = parse_own_scope(word, entry)
        except InvalidScope as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return Scopes(own)


def policies(value: str, alg: str | None, lifetime_s: int | None) -> Policies:
    """The path of a policy file. The file is read too.

    Raises:
        FaultsOfAFile: with every fault and its line.
    """
    file = path(value)
    try:
        content = file.read_bytes().decode()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(
            f"the file cannot be read ({reason}); write the path of a readable TOML file"
        ) from None
    from service.policies.reading import read_policies  # only a file of policies needs it

    found, faults = read_policies(
        content, alg=alg or DEFAULT_MINT_ALG, lifetime_s=lifetime_s or DEFAULT_MINT_LIFETIME_S, file=value
    )
    if faults:
        raise FaultsOfAFile([(fault.line, f"{value}, {fault}") for fault in faults])
    return found


def with_scopes_of_apis(own: Scopes | None, found: Policies | None) -> Scopes:
    """All available scopes, including those of APIs."""
    known = own or STANDARD_SCOPES
    if found is None:
        return known
    return replace(known, of_apis=found.scopes, unread=known.unread or found.unread)


def clients(value: str, own: Scopes | None, found: Policies | None) -> tuple[Client, ...]:
    """A JSON array of client metadata, which may use only those scopes. Its faults are one to a line."""
    known = with_scopes_of_apis(own, found)
    try:
        entries = json.loads(value)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError('is not a JSON array of clients; write [{"client_id": "…", "redirect_uris": ["…"]}]')
    ids = [entry.get("client_id") for entry in entries]
    names = [f"client {n} ({i})" if is_client_id(i) else f"client {n}" for n, i in enumerate(ids, 1)]
    faults = [
        f"{name}, {fault}"
        for name, entry in zip(names, entries, strict=True)
        for fault in client_faults(entry, scopes=known)
    ]
    faults += [
        f"{name}, client_id: is also the id of another client; write each id once"
        for number, (name, client_id) in enumerate(zip(names, ids, strict=True))
        if client_id is not None and client_id in ids[:number]
    ]
    if faults:
        raise ValueError("\n".join(faults))
    return tuple(parse_client(entry, source="environment", scopes=known) for entry in entries)


def brand_name(value: str) -> str:
    """The service's name for people: one line, 1 to 64 characters."""
    if not 1 <= len(value) <= 64 or not value.isprintable():
        raise ValueError("is not one line of text; write a name of 1 to 64 characters, such as Example Inc.")
    return value


def page_url(value: str) -> str:
    """An address of the app that browsers are sent to: https, or http on this machine."""
    example = "write it like https://app.example.com/sign-in"
    if not _VISIBLE.fullmatch(value) or "#" in value or "@" in value.split("?", maxsplit=1)[0]:
        raise ValueError(f"is not a plain address; {example}")
    scheme, separator, rest = value.partition("://")
    try:
        host = issuers.parse_host(re.split(r"[/?]", rest, maxsplit=1)[0])
    except issuers.InvalidHost:
        raise ValueError(f"has no well-formed host; {example}") from None
    if not separator or scheme not in {"https", "http"} or (scheme == "http" and not host.is_loopback):
        raise ValueError(f"is not https; {example}")
    return value


def key_file(value: str) -> KeyFile:
    """The path of the signing key's file. If the file exists, it is read."""
    file = path(value)
    try:
        return KeyFile(file, read_key_file(file))
    except FileNotFoundError:
        if fault := folder_fault(file.parent):
            raise ValueError(
                f"the file is missing and cannot be created ({fault}); write a path in a folder of the service's user"
            ) from None
        return KeyFile(file, None)


def folder_fault(folder: Path) -> str | None:
    """Why no file can be created in the folder (which may not exist yet), or None. Creates nothing."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return "not a folder"
    except OSError as exc:
        return exc.strerror or "unreadable"
    return None if os.access(folder, os.W_OK | os.X_OK) else "no permission to write"
