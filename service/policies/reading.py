"""Reads the text of a policy file. Returns the policies, and every fault with its line, its table and what to write.

First each member is checked by itself, with the table of members; then conflicts between members of a table; then
conflicts between tables. Later checks ignore a wrong member, so that one fault does not cause another.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.policies.cases import CASE, Case, make_case
from service.policies.lines import Path, key_lines, line_of
from service.policies.members import AUDIENCE, DEFAULT, Wrong, nearest, read_members
from service.policies.values import (
    CLIENT_CREDENTIALS,
    CLIENT_WAYS,
    NOTHING_REQUIRED,
    Policies,
    Policy,
    is_resource,
    named,
    table_name,
)

_TOP: Final = ("default", "audience", "case")
_EXAMPLE: Final = '[audience."https://api.example.com"]'
_AT: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")
#: `tomllib` passes numbers to `int`, which refuses more digits than this.
_HUGE: Final = re.compile(r"[0-9_]{4300,}")
_AUDIENCE_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")


@dataclass(frozen=True, slots=True)
class FileFault:
    """One fault in a policy file.

    Attributes:
        line: from 1.
        place: the table and its member; empty for the whole document.
        text: what is wrong, and what to write instead.
    """

    line: int
    place: str
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (f"line {self.line}", self.place, self.text)))


def read_policies(
    text: str, *, alg: str, lifetime_s: int, file: str = ""
) -> tuple[Policies, list[FileFault]]:
    """Read a policy file.

    Args:
        text: the content of the file.
        alg: the default algorithm of tokens.
        lifetime_s: their default lifetime in s.
        file: its path, for messages.

    Returns:
        The valid policies, and every fault in the order of the lines.

    Spec: TOML 1.0.0
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Policies({}, file=file, unread=True), [_no_toml(str(error), text)]
    except ValueError:
        before = _HUGE.split(text, maxsplit=1)[0]
        words = f"A number has too many digits (at line {before.count(chr(10)) + 1}, column 1)"
        return Policies({}, file=file, unread=True), [_no_toml(words, text)]
    except RecursionError:
        return Policies({}, file=file, unread=True), [
            FileFault(1, "", "is nested too deeply; write tables as documented")
        ]
    reader = _Reader(key_lines(text), alg, lifetime_s)
    policies = reader.read(document, file)
    return policies, sorted(reader.faults, key=lambda fault: fault.line)


def _no_toml(message: str, text: str) -> FileFault:
    """The message of the TOML parser, as a fault with its line."""
    at = _AT.search(message)
    line = int(at[1]) if at and at[1] else text.count("\n") + 1
    what = _AT.sub("", message)
    return FileFault(
        line,
        "",
        f"is not TOML ({what[:1].lower()}{what[1:]}); correct this line, because the lines after it are not read",
    )


class _Reader:
    """Collects the faults of one document."""

    def __init__(self, lines: Mapping[Path, int], alg: str, lifetime_s: int) -> None:
        self._lines = lines
        self._given = {"alg": alg, "lifetime_s": lifetime_s}
        self.faults: list[FileFault] = []

    def read(self, document: Mapping[str, Any], file: str) -> Policies:
        for name in document.keys() - set(_TOP):
            self._fault((name,), "", (name,), f"is not a table of this file; {nearest(name, _TOP)}")
        default, faulty = self._default(document.get("default", {}))
        tables: dict[str | None, Policy] = {}
        given = document.get("audience", {})
        if not isinstance(given, dict) or not all(isinstance(table, dict) for table in given.values()):
            self._fault(("audience",), "[audience]", (), f"is not a table of tables; write {_EXAMPLE}")
            given = {}
        elif not given:
            self._fault(("audience",), "", (), f"the file names no audience; write {_EXAMPLE}")
        for audience, table in given.items():
            policy = self._audience(audience, table, default, faulty)
            if policy is not None:
                tables[audience] = policy
        for audience in given:
            if audience.endswith("/") and audience[:-1] in given and is_resource(audience[:-1]):
                self._fault(
                    ("audience", audience),
                    table_name(audience),
                    (),
                    "is the same resource as the one without the slash; keep one of them",
                )
        cases = self._cases(document.get("case", []), given)
        return Policies(tables, cases=cases, file=file, lines=self._lines)

    def _fault(self, path: Path, table: str, member: Path, text: str) -> None:
        self.faults.append(
            FileFault(
                line_of(self._lines, path), named(table, member) if table else "".join(map(str, member)), text
            )
        )

    def _members(
        self, path: Path, table: str, value: Any, members: Mapping[str, Any]
    ) -> tuple[dict[str, Any], set[str]]:
        """The valid members of a table, and the names of the others."""
        values, faults = read_members(value, members)
        for within, text in faults:
            self._fault((*path, *within), table, within, text)
        return values, {str(within[0]) for within, _ in faults if within}

    def _default(self, value: Any) -> tuple[dict[str, Any], set[str]]:
        own = [name for name in AUDIENCE if name not in DEFAULT and isinstance(value, dict) and name in value]
        for name in own:
            self._fault(
                ("default", name),
                "[default]",
                (name,),
                "can only be set for a single audience; write it in the table of each",
            )
        rest = (
            {name: each for name, each in value.items() if name not in own}
            if isinstance(value, dict)
            else value
        )
        return self._members(("default",), "[default]", rest, DEFAULT)

    def _audience(
        self, audience: str, table: Any, default: Mapping[str, Any], faulty: set[str]
    ) -> Policy | None:
        if not _AUDIENCE_NAME.fullmatch(audience):
            self._fault(
                ("audience", audience),
                "[audience]",
                (),
                "a name is empty, too long or contains a control character; write 1 to 255 printable characters",
            )
            return None
        path: Path = ("audience", audience)
        own, wrong = self._members(path, table_name(audience), table, AUDIENCE)
        wrong |= faulty - own.keys()
        values = {**self._given, **default, **own}
        if values.get("strangers") and "claims" not in values:
            values["claims"] = ()
        policy = Policy(audience, **values)
        disagreeing = False
        for rule in _RULES:
            if not wrong.intersection(rule.reads):
                for member, text in rule.run(policy):
                    disagreeing = True
                    at = (*path, *member)
                    if member and member[0] not in table and member[0] in default:
                        at = ("default", *member)
                    self._fault(at, table_name(audience), member, text)
        return None if wrong or disagreeing else policy

    def _cases(self, value: Any, audiences: Mapping[str, Any]) -> tuple[Case, ...]:
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self._fault(("case",), "[[case]]", (), "is not a list of tables; write [[case]]")
            return ()
        cases = []
        for number, entry in enumerate(value):
            path: Path = ("case", number)
            name = f"[[case]] {number + 1}"
            values, wrong = self._members(path, name, entry, CASE)
            if wrong:
                continue
            try:
                case = make_case(values, line_of(self._lines, path))
            except Wrong as error:
                for within, text in error.faults:
                    self._fault((*path, *within), name, within, text)
                continue
            if case.audience not in audiences:
                near = nearest(case.audience, audiences) if audiences else f"write {_EXAMPLE}"
                self._fault((*path, "audience"), name, ("audience",), f"names no table of this file; {near}")
            cases.append(case)
        return tuple(cases)


# --- conflicts between members of one table ---

Disagreement = tuple[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule, and the members that it reads. It runs if all of them are valid."""

    reads: tuple[str, ...]
    run: Callable[[Policy], Iterator[Disagreement]]


_RULES: Final[list[_Rule]] = []


def _rule(*reads: str) -> Callable[[Callable[[Policy], Iterator[Disagreement]]], None]:
    def register(run: Callable[[Policy], Iterator[Disagreement]]) -> None:
        _RULES.append(_Rule(reads, run))

    return register


@_rule("secret_file", "secret_env", "alg")
def _one_secret(policy: Policy) -> Iterator[Disagreement]:
    if policy.secret_file is not None and policy.secret_env is not None:
        yield ("secret_env",), "is set together with secret_file; keep one of them"
    algs = {policy.alg, *([policy.migrate.to] if policy.migrate else [])}
    for member in ("secret_file", "secret_env"):
        if getattr(policy, member) is not None and "HS256" not in algs:
            yield (
                (member,),
                f'is a secret, but {policy.alg} signs with a private key; leave it out, or write alg = "HS256"',
            )


@_rule("alg", "grants", "migrate")
def _clients_verify_by_public_keys(policy: Policy) -> Iterator[Disagreement]:
    if "authorization_code" not in policy.grants:
        return
    if policy.alg == "HS256":
        yield (
            ("alg",),
            "HS256 cannot sign tokens for authorization_code, because their verifiers could sign them too; write ES256, or leave "
            "authorization_code out of grants",
        )
    if policy.migrate and policy.migrate.to == "HS256":
        yield ("migrate", "to"), "HS256 cannot sign tokens for authorization_code; write ES256"


@_rule("grants")
def _only_a_resource_can_be_asked_for(policy: Policy) -> Iterator[Disagreement]:
    ways = [way for way in policy.grants if way in CLIENT_WAYS]
    if ways and not is_resource(policy.audience or ""):
        yield (
            ("grants",),
            f"the audience is not an absolute URI without a fragment, so {ways[0]} cannot issue its tokens; write "
            f'["mint"], or name it as {_EXAMPLE}',
        )


@_rule("grants", "typ")
def _clients_get_no_jwt(policy: Policy) -> Iterator[Disagreement]:
    if policy.typ == "JWT" and CLIENT_WAYS.intersection(policy.grants):
        yield (
            ("typ",),
            "JWT is only for mint: a client's token with it could pass for an ID token; write at+jwt",
        )


@_rule("grants", "require")
def _a_client_has_no_sign_in(policy: Policy) -> Iterator[Disagreement]:
    if policy.require != NOTHING_REQUIRED and CLIENT_CREDENTIALS in policy.grants:
        yield (
            ("require",),
            "is set together with client_credentials, which has no sign-in; leave it out, or leave client_credentials out of grants",
        )


@_rule("scopes", "scope_descriptions")
def _descriptions_are_of_scopes(policy: Policy) -> Iterator[Disagreement]:
    for word in policy.scope_descriptions:
        if word not in policy.scopes:
            yield ("scope_descriptions", word), "is not among its scopes; add it there, or leave it out"


@_rule("scopes", "exchange_scopes")
def _exchanged_are_of_scopes(policy: Policy) -> Iterator[Disagreement]:
    for word in policy.exchange_scopes:
        if word not in policy.scopes:
            yield ("exchange_scopes",), f"{word} is not among its scopes; add it there, or leave it out"


@_rule("claims", "rename", "static", "strangers")
def _one_source_a_name(policy: Policy) -> Iterator[Disagreement]:
    for claim in policy.rename:
        if claim not in policy.claims:
            yield ("rename", claim), "is not among its claims; add it there, or leave it out"
    sources: dict[str, str] = {}
    for claim, name in policy.named_claims:
        if (other := sources.setdefault(name, claim)) != claim:
            at = ("rename", claim if claim in policy.rename else other)
            yield at, f"{name} would be both {other} and {claim}; write another name for one"
    for name in policy.static:
        if name in sources:
            yield ("static", name), f"is already {sources[name]} of the user; leave it out there, or here"


@_rule("alg", "migrate")
def _moves_elsewhere(policy: Policy) -> Iterator[Disagreement]:
    if policy.migrate and policy.migrate.to == policy.alg:
        yield ("migrate", "to"), f"is already {policy.alg}; write another algorithm, or leave migrate out"
