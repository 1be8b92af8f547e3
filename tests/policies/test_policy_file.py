"""The policy file: what each table may hold, every fault with its line and table, and the schema that editors have."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.policies import schema
from service.policies.cases import CASE
from service.policies.lines import key_lines, line_of
from service.policies.members import AUDIENCE, DEFAULT, MIGRATE, REQUIRE, Wrong
from service.policies.reading import read_policies
from service.policies.values import Policies, Require, names_issuer
from service.records.claims import PROTECTED_CLAIMS
from tests.docs.markdown import PROJECT, blocks, page

API = "https://api.example.com"


def read(text: str) -> tuple[Policies, list[str]]:
    """The policies of a text, and its faults in words."""
    policies, faults = read_policies(text, alg="RS256", lifetime_s=3600)
    return policies, list(map(str, faults))


# --- faults ---

#: A file, and what must be said of it: line, table and member, and what to write.
FAULTS: list[tuple[str, str, tuple[str, ...]]] = [
    ("no TOML", '[audience."a"\nalg = 1\n', ("line 1: is not TOML", "correct this line")),
    ("a key twice", '[audience.a]\nalg = "RS256"\nalg = "RS256"\n', ("line 3: is not TOML",)),
    ("no audience", "# nothing\n", ("line 1: the file names no audience", '[audience."https://api.example.com"]')),
    ("an unknown table", "[audience.a]\n[defaults]\nx = 1\n", ("line 2: defaults: ", "did you mean default?")),
    ("an unknown member", "[audience.a]\n\nlifetime = 60\n", ('line 3: [audience."a"], lifetime: ', "did you mean lifetime_s?")),
    ("a type", "[audience.a]\nlifetime_s = '60'\n", ('line 2: [audience."a"], lifetime_s: ', "from 1 to 86400")),
    ("true is no number", "[audience.a]\nlifetime_s = true\n", ("line 2: ", "write only digits")),
    ("too long", "[default]\nlifetime_s = 86_401\n[audience.a]\n", ("line 2: [default], lifetime_s: ",)),
    ("an algorithm", "[audience.a]\nalg = 'none'\n", ("line 2: ", "write HS256 or RS256 or PS256 or ES256 or Ed25519")),
    ("a way", "[audience.a]\ngrants = ['implicit']\n", ("line 2: ", "grants: ", "client_credentials")),
    ("no way", "[audience.a]\ngrants = []\n", ("line 2: ", "grants: ")),
    ("a client twice", f"[audience.'{API}']\nclients = ['a', 'a']\n", ("line 2: ", "clients: has one entry twice")),
    ("a secret by default", "[default]\nsecret_env = 'X'\n[audience.a]\n", ("line 2: [default], secret_env: can only be set for a single audience",)),
    ("two secrets", "[audience.a]\nalg = 'HS256'\nsecret_env = 'X'\nsecret_file = 'x'\n", ("line 3: ", "secret_env: is set together with secret_file")),
    ("a secret without use", "[audience.a]\nsecret_file = 'x'\n", ("line 2: ", "secret_file: ", "leave it out")),
    ("a protected scope", f"[audience.'{API}']\nscopes = ['sub']\n", ("line 2: ", "scopes: sub already has a meaning")),
    ("a standard scope", f"[audience.'{API}']\nscopes = ['openid']\n", ("line 2: ", "scopes: openid already has a meaning")),
    ("a claim of the protocol", "[audience.a]\nclaims = ['sub']\n", ("line 2: ", "claims: sub is always in the token")),
    ("groups", "[audience.a]\nclaims = ['groups']\n", ("line 2: ", 'rename = {roles = "groups"}')),
    ("a word without a scope", f"[audience.'{API}'.scope_descriptions]\n'x' = 'do x'\n", ("line 2: ", "scope_descriptions.x: is not among its scopes")),
    ("an exchanged word", f"[audience.'{API}']\nexchange_scopes = ['x']\n", ("line 2: ", "exchange_scopes: x is not among")),
    ("a rename of nothing", "[audience.a]\nrename = {email = 'mail'}\n", ("line 2: ", "rename.email: is not among its claims")),
    ("two of one name", "[audience.a]\nrename = {roles = 'tenant_id'}\n", ("line 2: ", "rename.roles: tenant_id would be both")),
    ("a fixed one of the user", "[audience.a]\nstatic = {roles = ['x']}\n", ("line 2: ", "static.roles: is already roles of the user")),
    ("a huge number", f"[audience.a]\n\nlifetime_s = {'9' * 5000}\n", ("line 3: is not TOML", "correct this line")),
    ("a date", "[audience.a]\nstatic = {x = 1979-05-27}\n", ("line 2: ", "static.x: is not JSON")),
    ("an unknown requirement", "[audience.a.require]\nacrs = ['x']\n", ("line 2: ", "require.acrs: ", "did you mean acr?")),
    ("an empty requirement", "[audience.a]\nrequire = {acr = []}\n", ("line 2: ", "require.acr: ")),
    ("not verified", "[audience.a]\nrequire = {email_verified = false}\n", ("line 2: ", "email_verified: is not true")),
    ("a machine's sign-in", f"[audience.'{API}']\ngrants = ['client_credentials']\nrequire = {{acr = ['x']}}\n", ("line 3: ", "require: is set together with client_credentials")),
    ("a machine's, by default", f"[default]\nrequire = {{acr = ['x']}}\n[audience.'{API}']\ngrants = ['client_credentials']\n", ("line 2: ", f'[audience."{API}"], require')),
    ("HS256 for relying parties", f"[audience.'{API}']\nalg = 'HS256'\ngrants = ['authorization_code']\n", ("line 2: ", "alg: HS256 cannot sign", "write ES256")),
    ("no resource", "[audience.api]\ngrants = ['mint', 'client_credentials']\n", ("line 2: ", "cannot issue its tokens")),
    ("a fragment", "[audience.'https://a.example/#x']\ngrants = ['client_credentials']\n", ("line 2: ", "without a fragment")),
    ("a JWT for a client", f"[audience.'{API}']\ngrants = ['client_credentials']\ntyp = 'JWT'\n", ("line 3: ", "typ: JWT is only for mint")),
    ("another kind's typ", "[audience.a]\ntyp = 'logout+jwt'\n", ("line 2: ", "typ: is the type of other tokens")),
    ("half a move", "[audience.a]\nmigrate = {to = 'ES256'}\n", ("line 2: ", "migrate: percent is missing")),
    ("a move to itself", "[audience.a]\nmigrate = {to = 'RS256', percent = 1}\n", ("line 2: ", "migrate.to: is already RS256")),
    ("one resource twice", f"[audience.'{API}']\n[audience.'{API}/']\n", ("line 2: ", "is the same resource")),
    ("no name", "[audience.'']\n", ("line 1: [audience]: a name is empty",)),
    ("a case of nobody", "[audience.a]\n[[case]]\naudience = 'b'\nuser = {}\nrefuse = 'x'\n", ("line 3: [[case]] 1, audience: names no table",)),
    ("a date in a case", "[audience.a]\n[[case]]\naudience = 'a'\nuser = {}\nexpect = {x = 1979-05-27}\n", ("line 5: [[case]] 1, expect: contains a value that a claim cannot have",)),
    ("a case without an end", "[audience.a]\n[[case]]\naudience = 'a'\nuser = {}\n", ("line 2: [[case]] 1: does not have exactly one of expect and refuse",)),
]  # fmt: skip


def test_every_fault_names_its_line_its_table_and_what_to_write(subtests: pytest.Subtests) -> None:
    """Each fault is one line, which says where it is, what is wrong, and what to write instead."""
    for name, text, words in FAULTS:
        with subtests.test(name):
            (fault,) = read(text)[1]
            assert fault.startswith(words[0])
            assert all(word in fault for word in words)
            assert "; " in fault


def test_one_fault_never_hides_another_and_makes_none() -> None:
    """All faults of a file are shown, in the order of its lines; what depends on a wrong member is not shown as well."""
    renumbered = [  # each in a file of its own has its own audience
        (
            number,
            each.replace("audience.a]", f"audience.a{number}]").replace(
                "audience.a.", f"audience.a{number}."
            ),
        )
        for number, (_, each, words) in enumerate(FAULTS)
        if each.startswith("[audience.a")
        and "case" not in each
        and not each.startswith("[audience.api")
        and "[default" not in each
        and "is not TOML" not in words[0]
    ]
    _, faults = read("\n".join(each for _, each in renumbered))
    assert len(faults) == len(renumbered)
    lines = [int(fault.split()[1].rstrip(":")) for fault in faults]
    assert lines == sorted(lines)
    _, faults = read("[audience.a]\nclaims = 3\nrename = {email = 'mail'}\nstatic = {x = 1, sub = 2}\n")
    assert [fault.split(": ")[1] for fault in faults] == [
        '[audience."a"], claims',
        '[audience."a"], static.sub',
    ]


def test_no_name_of_the_protocol_is_set(subtests: pytest.Subtests) -> None:
    """RFC 9068 §5, RFC 8725 §3.11: nothing replaces a claim of the protocol, with any member."""
    for name in sorted(PROTECTED_CLAIMS | {"email_verified", "phone_number_verified"}):
        with subtests.test(name):
            for text in (f"rename = {{roles = '{name}'}}", f"static = {{'{name}' = 'x'}}"):
                (fault,) = read(f"[audience.a]\n{text}\n")[1]
                assert "no name of the protocol's" in fault
            if name in PROTECTED_CLAIMS:
                assert len(read(f"[audience.a]\nscopes = ['{name}']\n")[1]) == 1


def test_a_table_has_its_defaults_those_of_the_file_and_its_own() -> None:
    """A member of a table wins over the one of [default] as a whole, that one over what every table has."""
    policies, faults = read(
        "[default]\nlifetime_s = 600\nclaims = ['email', 'roles']\nrequire = {acr = ['a'], amr = ['b']}\n"
        "[audience.a]\n[audience.b]\nlifetime_s = 60\nclaims = []\nrequire = {roles = ['r']}\n"
    )
    assert faults == []
    a, b = policies.tables["a"], policies.tables["b"]
    assert (a.alg, a.lifetime_s, a.grants, a.claims) == ("RS256", 600, ("mint",), ("email", "roles"))
    assert a.require == Require(acr=("a",), amr=("b",))
    assert (b.lifetime_s, b.claims, b.require) == (60, (), Require(roles=("r",)))
    (plain,) = read("[audience.a]\n")[0].tables.values()
    assert (plain.claims, plain.clients, plain.scopes, plain.typ_by("mint")) == (
        ("roles", "tenant_id"),
        None,
        (),
        "JWT",
    )
    (open_one,) = read(f"[audience.'{API}']\nstrangers = true\ngrants = ['authorization_code']\n")[
        0
    ].tables.values()
    assert (open_one.claims, open_one.typ_by("authorization_code")) == ((), "at+jwt")


def test_a_resource_is_the_name_of_an_audience_and_nothing_near_it(subtests: pytest.Subtests) -> None:
    """RFC 8707 §2: compared as it is; an origin may have a slash at its end."""
    policies, _ = read(
        f"[audience.'{API}']\n[audience.'https://b.example/v1']\n[audience.'urn:c']\n[audience.d]\n"
    )
    known = {API: API, f"{API}/": API, "https://b.example/v1": "https://b.example/v1", "urn:c": "urn:c"}
    near = (
        API.upper(),
        f"{API}//",
        f"{API}/x",
        f"{API}:443",
        "https://b.example/v1/",
        "https://b.example",
        "urn:c/",
        "d",
        "",
        "*",
    )
    for resource, audience in [*known.items(), *((each, None) for each in near)]:
        with subtests.test(resource):
            found = policies.of_resource(resource)
            assert (None if found is None else found.audience) == audience


@pytest.mark.parametrize(
    ("resource", "issuer", "is_it"),
    [
        ("https://id.example", "https://id.example", True),
        ("https://id.example/", "https://id.example", True),
        ("https://id.example/idp", "https://id.example/idp", True),
        ("https://id.example/idp/", "https://id.example/idp", False),
        ("https://id.example//", "https://id.example", False),
        ("https://ID.example", "https://id.example", False),
    ],
)
def test_the_issuer_is_a_resource_by_its_own_name(resource: str, issuer: str, is_it: bool) -> None:
    """RFC 8707 §2: only an origin may have a slash at its end."""
    assert names_issuer(resource, issuer) is is_it


# --- lines ---

_KEYS = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.text(max_size=6))
_NOISE = st.sampled_from(["", "# [x] = 'y'\n", "\n\n", '   \n\t# """\n'])
_VALUES = st.sampled_from(
    [
        "1",
        "'='",
        '"a # \\" b"',
        "[\n 1, # ]\n 2,\n]",
        '"""\n[no]\nx = 1\n"""',
        "'''\n#'''",
        "{x = 1, y.z = '}'}",
        "1979-05-27T07:32:00Z",
    ]
)


def _quoted(key: str) -> str:
    """A key as a basic string of TOML."""
    return (
        '"'
        + "".join(char if char.isalnum() and char.isascii() else f"\\U{ord(char):08x}" for char in key)
        + '"'
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            _NOISE,
            st.booleans(),
            st.lists(_KEYS, min_size=1, max_size=3),
            st.lists(st.tuples(_NOISE, _KEYS, _VALUES), max_size=4),
        ),
        max_size=6,
    )
)
def test_each_key_is_found_on_its_line(
    tables: list[tuple[str, bool, list[str], list[tuple[str, str, str]]]],
) -> None:
    """With any comments, strings and lists around it, each header and key is found where it was written."""
    text, expected, entries = "", {}, 0
    for noise, is_entry, path, pairs in tables:
        text += noise
        names: tuple[Any, ...] = ("list", entries) if is_entry else ("t", *path)
        header = "[[list]]" if is_entry else "[" + " . ".join(["t", *map(_quoted, path)]) + "]"
        expected_here = {names: text.count("\n") + 1}
        text += f"  {header} # = \n"
        for space, key, value in pairs:
            text += space
            expected_here[(*names, key)] = text.count("\n") + 1
            text += f"{_quoted(key)} = {value}\n"
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return  # a key or a table twice
        expected |= expected_here
        entries += is_entry
    lines = key_lines(text)
    assert {path: lines.get(path) for path in expected} == expected
    assert all(line_of(lines, (*path, "deeper")) == line for path, line in expected.items())


# --- the schema ---


def test_the_published_schema_is_the_one_of_the_code() -> None:
    """The file in the package is what the table of members makes; and the docs name each member of each table, once."""
    published = PROJECT / "service/policies/policies.schema.json"
    assert published.read_text() == schema.as_text(), f"write it: pylon-oidc policy schema > {published}"
    assert set(DEFAULT) == set(AUDIENCE) - {"secret_file", "secret_env"}


def test_the_example_of_the_docs_is_sound_to_both(tmp_path: Path) -> None:
    """What docs/policies.md shows as a whole file has no fault, and the schema takes it."""
    text = blocks(page("policies.md"))["policies"].code
    assert read(text)[1] == []
    fastjsonschema.compile(schema.json_schema())(tomllib.loads(text))


_WORDS = st.sampled_from(
    [
        "a",
        "mint",
        "roles",
        "groups",
        "acr",
        "email_verified",
        "sub",
        "openid",
        "ES256",
        "JWT",
        "at+jwt",
        "logout+jwt",
        "",
        " ",
        "a b",
        "\n",
        "é",
        "a" * 65,
        "a" * 256,
        "client_credentials",
        "tenant_id",
    ]
)
_SCALARS = st.one_of(
    _WORDS, st.booleans(), st.integers(-1, 101), st.sampled_from([0, 60, 86_400, 86_401, 2**53, 0.5])
)
_ANY = st.recursive(
    _SCALARS,
    lambda within: st.one_of(st.lists(within, max_size=3), st.dictionaries(_WORDS, within, max_size=2)),
    max_leaves=5,
)
_TABLES = {"audience": AUDIENCE, "require": REQUIRE, "migrate": MIGRATE, "case": CASE}
_CHECKS = {
    (table, name): fastjsonschema.compile(dict(member.schema))
    for table, members in _TABLES.items()
    for name, member in members.items()
}
_MEANT = {
    "require": st.dictionaries(st.sampled_from([*REQUIRE, "acrs"]), _ANY, max_size=2),
    "migrate": st.fixed_dictionaries({"to": _SCALARS, "percent": _SCALARS}),
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_schema_and_parser_take_the_same_members(data: st.DataObject) -> None:
    """An editor refuses a member's value exactly where the service does."""
    for (table, name), check in _CHECKS.items():
        value = data.draw(st.one_of(_ANY, _MEANT.get(name, _ANY)), label=name)
        if name in {"static", "expect"} and isinstance(value, dict):
            value = dict.fromkeys(value, 1)  # JSON Schema has no words for what TOML has and JSON lacks
        try:
            _TABLES[table][name].parse(value)
            taken = True
        except Wrong:
            taken = False
        try:
            check(value)
            valid = True
        except fastjsonschema.JsonSchemaValueException:
            valid = False
        assert taken is valid, (table, name, value)
