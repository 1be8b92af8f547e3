"""The documentation says what the program does: nothing undocumented, nothing documented and absent.

Each `…_complaints` reads one page and says what is missing in it and what is too much. It is tested twice: the page
as it is gives no complaint, and a page that lacks a line, or has one too many, gives one.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import jwt
import pytest
from falcon import HTTP_METHODS, HTTPMethodNotAllowed

from service.app import routes
from service.cli import main
from service.events import UNHEARD
from service.keys.material import load_private_key
from service.keys.signing import Keys, build_keyring
from service.policies.deciding import Asked, Given, decide
from service.policies.values import MINT, Policies, Policy
from service.protocol import authorize, clients
from service.protocol.errors import OAuthError
from service.protocol.grants import GRANT_TYPES
from service.protocol.id_tokens import mint_id_token
from service.protocol.metadata import build_metadata
from service.protocol.tokens import sign_token
from service.records.scopes import SCOPE_CLAIMS, SCOPES
from service.records.sessions import Session
from service.records.users import User
from service.resources import interactions
from service.resources.parts import parts_of
from service.resources.sign_in_request import AboutUser, SignInRequest, TrustedMintRequest
from service.settings import NAMES, read_settings
from service.startup import open_store
from service.web.bodies import StrictModel
from service.web.errors import ERRORS
from tests.docs.markdown import (
    PROJECT,
    all_markdown,
    anchors,
    blocks,
    codes,
    first_codes,
    headings,
    links,
    page,
    pages,
    prose,
    rows,
    section,
)
from tests.settings.reading import STRONG
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem


def complaints(documented: Iterable[str], real: Iterable[str]) -> list[str]:
    """What is real and not documented, documented and not real, documented twice."""
    counted, real = Counter(documented), set(real)
    return [
        *(f"{name} is undocumented" for name in sorted(real - set(counted))),
        *(f"{name} is documented and absent" for name in sorted(set(counted) - real)),
        *(f"{name} is documented twice" for name, count in sorted(counted.items()) if count > 1),
    ]


# --- settings ---


def names_read_by(path: Path) -> set[str]:
    """The environment names that a file of Python reads: `os.environ[NAME]`, `os.environ.get(NAME)` and the like.

    A function of the file that reads the name which it is given counts as one of these.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    helpers = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.args.args
        for asked in names_asked(function)
        if isinstance(asked, ast.Name) and asked.id == function.args.args[0].arg
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in helpers:
            node.func.id = "getenv"
    found = {str(asked.value) for asked in names_asked(tree) if isinstance(asked, ast.Constant)}
    return {name.removesuffix("_FILE") for name in found}


def names_asked(tree: ast.AST) -> Iterator[ast.expr]:
    """What a tree asks the environment for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function.endswith("getenv") or ("environ" in function and function.endswith(".get")):
                yield from node.args[:1]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            yield node.slice


def is_setting(row: list[str]) -> bool:
    """Whether a row of the settings' page is about a setting, and not about a member of a client's metadata."""
    return any(code == code.upper() for code in codes(row[0]))


def setting_complaints(text: str) -> list[str]:
    documented = [code for row in rows(text) if is_setting(row) for code in codes(row[0])]
    return complaints(documented, {*NAMES, *names_read_by(PROJECT / "service/serving/plan.py")})


def default_complaints(text: str) -> list[str]:
    """The documented default, read by the setting's own parser, is the value that the program takes without one."""
    unset = read_settings({}).settings
    found = []
    value: object
    real: object
    for name, shown, *_ in (row for row in rows(text) if is_setting(row)):
        name, field = name.strip("`"), NAMES.get(name.strip("`"))
        if field is None:  # read by gunicorn's configuration: no default of its own
            value, real = shown, "unset"
        elif shown == "unset":
            value, real = None, getattr(unset, field) or None
        else:
            reading = read_settings({name: shown.strip("`")})
            value, real = getattr(reading.settings, field), getattr(unset, field)
            if any(fault.name == name for fault in reading.faults) or value in (None, ()):
                value = f"a faulty {shown}"
        if value != real:
            found.append(f"{name} has another default")
    return found


def mention_complaints(text: str) -> list[str]:
    """Settings that a page speaks of, wherever it does, exist, except the one that shows a misspelling."""
    known = {*NAMES, *(f"{name}_FILE" for name in NAMES), "PYLON_JWT_SECRETT"}
    mentioned = set(re.findall(r"\bPYLON_[A-Z][A-Z_]*[A-Z]\b", prose(text)))
    return [f"{name} is mentioned and absent" for name in sorted(mentioned - known)]


# --- clients ---


def member_complaints(text: str) -> list[str]:
    """Members of a client's metadata, and what they are when they are left out."""
    documented = rows(section(text, "Client metadata"))
    bare = clients.parse_client(
        {"client_id": "a", "client_secret": STRONG, "redirect_uris": ["https://a.example/"]},
        source="environment",
    )
    found = complaints((code for row in documented for code in codes(row[0])), clients.MEMBERS)
    for cell, shown, *_ in documented:
        name = cell.strip("`")
        if name not in clients.MEMBERS or shown == "required" or name == "client_secret":
            continue
        shown = shown.split(" with a secret")[0]
        real: Any = getattr(bare, name)
        if isinstance(real, tuple):
            real = " ".join(real) if name == "scope" else list(real)
        if (None if shown == "unset" else json.loads(shown.strip("`"))) != real:
            found.append(f"{name} has another default")
    return found


def example_client_complaints(text: str) -> list[str]:
    """What the service says against the example of clients, with a secret where it leaves one out."""
    example = blocks(text)["clients"].code.strip().replace('"…"', f'"{STRONG}"')
    reading = read_settings({"PYLON_OIDC_CLIENTS": example})
    return [str(fault) for fault in reading.faults if fault.text.startswith(("client ", "is no JSON"))]


# --- the ordered checks ---


def oauth_errors_of(function: Callable[..., object]) -> set[str]:
    """The OAuth errors that a function of the authorization rules names, itself or in one that it calls."""
    tree = ast.parse(inspect.getsource(function))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    found = errors_named_in(tree)
    for call in calls:
        assert isinstance(call.func, ast.Name)
        called = getattr(authorize, call.func.id, None)
        if inspect.isfunction(called) and called is not function:
            found |= oauth_errors_of(called)
    return found


def errors_named_in(tree: ast.AST) -> set[str]:
    """The OAuth errors that a tree names: `OAuthError("…", …)` and `{"error": "…"}`."""
    found = set()
    for node in ast.walk(tree):
        value: ast.expr | None = None
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "OAuthError":
            value = node.args[0]
        elif isinstance(node, ast.Dict) and node.keys and ast.unparse(node.keys[0] or node) == "'error'":
            value = node.values[0]
        if isinstance(value, ast.Constant):
            found.add(str(value.value))
    return found


def check_complaints(text: str) -> list[str]:
    """The table of the ordered checks: each with its errors and with how it answers, in the order of the code."""
    table = rows(section(text, "The ordered checks of an authorization request"))
    documented = [code for row in table for code in codes(row[0])]
    checks = [*authorize.BEFORE_TRUST, *authorize.AFTER_TRUST]
    found = complaints(documented, [check.__name__ for check in checks])
    if not found and documented != [check.__name__ for check in checks]:
        return ["the checks are in another order"]
    by_name = {check.__name__: check for check in checks}
    for name, _, errors, answer, _ in table:
        check = by_name.get(name.strip("`"))
        if check is None:
            continue
        if set(codes(errors)) != oauth_errors_of(check):
            found.append(f"{check.__name__} has other errors")
        if answer != ("page" if check in authorize.BEFORE_TRUST else "redirect"):
            found.append(f"{check.__name__} answers otherwise")
    return found


# --- routes, discovery, fields ---


def mounted(*, admin_only: bool = False) -> set[str]:
    """`METHOD path` of every route in dev mode, without a configured issuer; or of those that only the admin token opens."""
    settings = read_settings({"PYLON_DEV_MODE": "1"}).settings
    store = open_store(settings)
    keyring = Keys(build_keyring(mint_alg=settings.jwt_alg))
    table = routes(parts_of(settings, store, keyring, lambda: 0.0, UNHEARD))
    found = set()
    for path, mount in table.items():
        resource = mount.resource
        methods = {method for method in HTTP_METHODS if hasattr(resource, f"on_{method.lower()}")}
        if admin_only:
            guarded = getattr(resource, "admin_only", frozenset())
            methods &= methods if guarded is True else guarded
        found |= {f"{method} {path}" for method in methods if method != "HEAD" or serves_head(resource)}
    return found


def serves_head(resource: Any) -> bool:
    """Whether `HEAD` is more than a refusal."""
    if resource.on_head == getattr(resource, "on_get", None):
        return True
    try:
        resource.on_head(None, None)
    except HTTPMethodNotAllowed:
        return False
    return True


def documented_routes(text: str, beginning: str = "") -> list[str]:
    """`METHOD path` of every heading that is one, where the text below it begins so."""
    documented = []
    for heading in headings(text):
        match = re.fullmatch(r"`([A-Z]+(?:, [A-Z]+)*) (/\S*)`", heading)
        if match and section(text, heading).strip().startswith(beginning):
            documented += [f"{method} {match[2]}" for method in match[1].split(", ")]
    return documented


def route_complaints(text: str) -> list[str]:
    return complaints(documented_routes(text), mounted())


def admin_complaints(text: str) -> list[str]:
    """What only the admin token opens is what is said to be so."""
    return complaints(documented_routes(text, "Auth: admin"), mounted(admin_only=True))


def discovery_complaints(text: str) -> list[str]:
    opened = Policy(
        "https://a.example", "RS256", lifetime_s=60, grants=("authorization_code",), strangers=True
    )
    policies = Policies({opened.audience: opened})
    metadata = build_metadata("https://id.example.com", algs=["RS256"], policies=policies, documents=True)
    discovery = section(text, "`GET, HEAD, OPTIONS /.well-known/openid-configuration`")
    found = complaints(first_codes(discovery), metadata)
    if json.loads(blocks(text)["discovery"].code) != build_metadata("https://id.example.com", algs=["RS256"]):
        found.append("the example is another document")
    return found


SESSION = Session(
    sid="s",
    token_hash="",
    token_prefix="",
    user_id="ada",
    created_at=0,
    expires_at=9,
    lifetime_s=9,
    auth_time=0,
    tenant_id="acme",
    roles=("admin",),
)


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token that this file has made."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def minted_claim_complaints(text: str) -> list[str]:
    """Claims of a minted token that has all of them."""
    ring = build_keyring(mint_alg="RS256", private_key=load_private_key(rsa_pem()))
    decided = decide(Policy("a", "RS256", 9), Asked(MINT, "i", 0, session=SESSION))
    assert isinstance(decided, Given)
    minted = sign_token(decided, Keys(ring))
    mint = section(text, "`POST /api/auth/jwt`")
    return complaints([name for name in first_codes(mint) if name != "audience"], claims_of(minted.token))


def id_token_claim_complaints(text: str) -> list[str]:
    """Claims of an ID token that has all of them, but those of the user."""
    made = mint_id_token(
        build_keyring(mint_alg="HS256", private_key=load_private_key(rsa_pem())),
        User("ada"),
        {"auth_time": 0, "sid": "s", "nonce": "n", "acr": "1", "amr": ["pwd"]},
        clients.Client("c", (), "environment"),
        issuer="i",
        scope=(),
        access_token="t",
        lifetime_s=9,
        now=0,
    ).token
    requests = {each.name for each in GRANT_TYPES}  # of the table above the claims'
    documented = first_codes(section(text, "`POST, OPTIONS /oidc/token`"))
    return complaints([name for name in documented if name not in requests], claims_of(made))


def scope_complaints(text: str) -> list[str]:
    """Scopes, and the claims that each gives."""
    table = rows(section(text, "Scopes and claims"))
    documented = [
        f"{code} with {claim}" for row in table for code in codes(row[0]) for claim in codes(row[1])
    ]
    real = [f"{scope} with {claim}" for scope, names in SCOPE_CLAIMS.items() for claim in names]
    return complaints(documented, [*real, "openid with sub"]) + complaints(
        (code for row in table for code in codes(row[0])), SCOPES
    )


#: What else takes a JSON body of its own.
BODIES: dict[str, type[StrictModel]] = {
    "`POST /api/oidc/interactions/{interaction_id}/consent`": interactions._ConsentRequest,
    "`POST /api/oidc/interactions/{interaction_id}/reject`": interactions._Rejection,
    "`PUT /api/auth/users/{user_id}`": AboutUser,
}


def body_field_complaints(text: str) -> list[str]:
    """Fields of those bodies."""
    return [
        complaint
        for heading, model in BODIES.items()
        for complaint in complaints(first_codes(section(text, heading)), model.__struct_fields__)
    ]


def sign_in_field_complaints(text: str) -> list[str]:
    session = first_codes(section(text, "`POST /api/auth/session`"))
    trusted = first_codes(section(text, "`POST /api/auth/sessions/trusted-mint`"))
    return complaints(session, SignInRequest.__struct_fields__) + complaints(
        session + trusted, TrustedMintRequest.__struct_fields__
    )


# --- errors ---


def error_complaints(text: str) -> list[str]:
    """Codes with their status."""
    documented = [f"{codes(row[0])[0]} {row[1]}" for row in rows(section(text, "Codes"))]
    return complaints(documented, (f"{code} {status}" for code, (status, _) in ERRORS.items()))


def proxy_error_complaints(text: str) -> list[str]:
    """nginx's own code, and the statuses for which it has words."""
    refused = section(text, "Refused by nginx")
    site = (PROJECT / "nginx/site.conf").read_text(encoding="utf-8")
    words = re.search(r"map \$status \$pylon_refusal \{(.*?)\n\}", site, re.S)
    assert words is not None
    return complaints(first_codes(refused), re.findall(r'"code":"(\w+)"', site)) + complaints(
        (row[0] for row in rows(refused) if row[0].isdigit()), re.findall(r"^\s*(\d{3})\s", words[1], re.M)
    )


#: Where errors are raised that go to the redirect URI; those of every other file are answered as JSON.
REDIRECTED = {PROJECT / "service/protocol/authorize.py", PROJECT / "service/protocol/sign_in.py"}


def oauth_error_complaints(text: str) -> list[str]:
    """OAuth errors: those by redirect, and those as JSON with their status."""
    redirected: set[str] = set()
    answered: set[str] = set()
    answering = set((PROJECT / "service").rglob("*.py")) - set((PROJECT / "service/doctor").rglob("*.py"))
    for path in answering:
        named = errors_named_in(ast.parse(path.read_text(encoding="utf-8")))
        (redirected if path in REDIRECTED else answered).update(named)
    as_json = rows(section(text, "Answered as JSON"))
    return complaints(first_codes(section(text, "Sent to the redirect URI")), redirected) + complaints(
        (f"{code} {row[1]}" for row in as_json for code in codes(row[0])),
        (f"{error} {OAuthError(error, '').status}" for error in answered),
    )


def endpoint_error_complaints(text: str) -> list[str]:
    """Error codes that an endpoint's description names exist."""
    named = {code for code in codes(text) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code)}
    return [f"{code} is no error code" for code in sorted(named - set(ERRORS) - set(NAMES))]


# --- the command line ---


def commands(command: click.Command, name: str = "pylon-oidc") -> Iterator[tuple[str, set[str]]]:
    """Every command with its options; `--help` and `--env-file`, which all have, stand with the first one only."""
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    options = {
        name.upper() if isinstance(param, click.Argument) else name
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
    }
    of_all = {*context.help_option_names, "--env-file"}
    yield name, options | of_all if name == "pylon-oidc" else options - of_all
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            yield from commands(child, f"{name} {child_name}")


def cli_complaints(text: str) -> list[str]:
    real = dict(commands(main))
    documented = [heading.strip("`") for heading in headings(text) if heading.startswith("`")]
    found = complaints(documented, real)
    for name in set(real) & set(documented):
        options = complaints(first_codes(section(text, f"`{name}`")), real[name])
        found += [f"{name}: {complaint}" for complaint in options]
    return found


# --- files ---


def nginx_file_complaints(text: str) -> list[str]:
    """Every file of `nginx/` is named in backticks, with or without its folder; every `.conf` so named exists."""
    real = {str(path.relative_to(PROJECT / "nginx")) for path in (PROJECT / "nginx").rglob("*.conf*")}
    # `local.conf` is the operator's copy of its example, `nginx.conf` is nginx's own.
    named = {
        code.removeprefix("nginx/").removeprefix("pylon-oidc/")
        for code in codes(text)
        if re.fullmatch(r"(?:nginx/|pylon-oidc/)?(?:snippets/)?[a-z-]+\.conf(\.example)?", code)
    } - {"local.conf", "nginx.conf"}
    bare = {Path(name).name: name for name in real}
    return complaints((bare.get(name, name) if "/" not in name else name for name in named), real)


def example_complaints(text: str) -> list[str]:
    """The example of an environment has a line for each setting; a setting may have two lines, one of them for a file."""
    found = re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.M)
    named = {name if name in NAMES else name.removesuffix("_FILE") for name in found}
    return complaints(named, {*NAMES, *names_read_by(PROJECT / "service/serving/plan.py")})


def deploy_file_complaints(text: str) -> list[str]:
    """Every file of `deploy/` is named, by its path."""
    real = {str(path.relative_to(PROJECT)) for path in (PROJECT / "deploy").iterdir() if path.is_file()}
    # What an operator makes next to compose.yaml.
    ours = real - {"deploy/pylon-oidc.env", "deploy/.env"}
    return [f"{path} is undocumented" for path in sorted(ours) if path not in text]


def reference_complaints(text: str) -> list[str]:
    """Files of the project that are named in backticks exist, and `file.py::Name` is defined in its file."""
    found = []
    for code in codes(text):
        match = re.fullmatch(r"((?:service|deploy|nginx|tests|bench|examples)/[\w./-]+)(?:::([\w.]+))?", code)
        if match is None:
            continue
        path = PROJECT / match[1]
        if path.with_name(f"{path.name}.example").exists():  # what an operator makes of the example
            continue
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            found.append(f"{match[1]} does not exist")
        elif match[2] and not set(match[2].split(".")) <= defined_in(path):
            found.append(f"{match[2]} is not defined in {match[1]}")
    return found


def defined_in(path: Path) -> set[str]:
    """The names of the functions and classes of a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def link_complaints(all_pages: dict[str, str]) -> list[str]:
    """Relative links lead to files of the project, and anchors to headings."""
    found = []
    for name, text in all_pages.items():
        for target in links(text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = ((PROJECT / name).parent / path).resolve() if path else PROJECT / name
            if not file.is_relative_to(PROJECT) or not file.exists():
                found.append(f"{name}: {target} leads nowhere")
            elif anchor:
                there = all_pages.get(str(file.relative_to(PROJECT)))
                if there is None or anchor not in anchors(there):
                    found.append(f"{name}: {target} is no heading there")
    return found


def orphan_complaints(all_pages: dict[str, str]) -> list[str]:
    """Every page can be reached from the README by links."""
    seen, due = set(), ["README.md"]
    while due:
        name = due.pop()
        if name in seen or name not in all_pages:
            continue
        seen.add(name)
        for target in links(all_pages[name]):
            file = ((PROJECT / name).parent / target.partition("#")[0]).resolve()
            if file.is_relative_to(PROJECT):
                due.append(str(file.relative_to(PROJECT)))
    return [f"{name} is linked from nowhere" for name in sorted(set(all_pages) - seen)]


def dependency_complaints(text: str) -> list[str]:
    """Each direct dependency, those of the tests included, has its reason."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    real = {re.split(r"[^\w-]", requirement)[0] for group in groups for requirement in group}
    named = {code for code in codes(text) if re.fullmatch(r"[a-z][a-z0-9-]*", code)}
    return complaints(named, real)


# --- the pages as they are ---


def test_every_setting_is_documented_and_none_that_is_absent() -> None:
    """docs/settings.md has a row for each setting of the service and of gunicorn's configuration, and no other."""
    assert setting_complaints(page("settings.md")) == []


def test_documented_defaults_are_those_of_the_code() -> None:
    """The default that docs/settings.md tells is the one that the program takes."""
    assert default_complaints(page("settings.md")) == []


def test_settings_that_pages_mention_exist() -> None:
    """Every `PYLON_` name on a page is a setting."""
    assert [(name, found) for name, text in pages().items() if (found := mention_complaints(text))] == []


def test_every_member_of_a_client_is_documented_with_its_default() -> None:
    """docs/settings.md has a row for each member of a client's metadata, and what it is when it is left out."""
    assert member_complaints(page("settings.md")) == []


def test_the_example_of_clients_is_taken() -> None:
    """The service has nothing to say against the clients that docs/settings.md shows."""
    assert example_client_complaints(page("settings.md")) == []


def test_the_ordered_checks_are_documented_in_their_order() -> None:
    """docs/architecture.md has the checks of an authorization request in order, with their errors and answers."""
    assert check_complaints(page("architecture.md")) == []


def test_every_route_and_method_is_documented_and_none_that_is_absent() -> None:
    """docs/endpoints.md has a heading for each path with its methods, and no other."""
    assert route_complaints(page("endpoints.md")) == []


def test_what_the_admin_token_opens_is_documented() -> None:
    """docs/endpoints.md says `Auth: admin` of each method that only the admin token opens, and of no other."""
    assert admin_complaints(page("endpoints.md")) == []


def test_documented_discovery_is_the_discovery_that_is_served() -> None:
    """The members and the example in docs/endpoints.md are those of the metadata document."""
    assert discovery_complaints(page("endpoints.md")) == []


def test_documented_claims_are_those_of_minted_tokens() -> None:
    """docs/endpoints.md has a row for each claim of a minted token, and no other."""
    assert minted_claim_complaints(page("endpoints.md")) == []


def test_documented_claims_are_those_of_id_tokens() -> None:
    """docs/endpoints.md has a row for each claim of an ID token, and no other."""
    assert id_token_claim_complaints(page("endpoints.md")) == []


def test_documented_scopes_give_the_claims_that_they_give() -> None:
    """docs/endpoints.md has a row for each scope with its claims, and no other."""
    assert scope_complaints(page("endpoints.md")) == []


def test_documented_fields_of_bodies_are_those_that_are_taken() -> None:
    """docs/endpoints.md has a row for each field of the bodies that report and change, and no other."""
    assert body_field_complaints(page("endpoints.md")) == []


def test_documented_fields_are_those_of_a_sign_in() -> None:
    """docs/endpoints.md has a row for each field by which a session is begun, and no other."""
    assert sign_in_field_complaints(page("endpoints.md")) == []


def test_every_error_code_is_documented_with_its_status_and_none_that_is_absent() -> None:
    """docs/errors.md has a row for each error code of the service, and no other."""
    assert error_complaints(page("errors.md")) == []


def test_every_refusal_of_nginx_is_documented_and_none_that_is_absent() -> None:
    """docs/errors.md tells nginx's own code and each status that has words in the site."""
    assert proxy_error_complaints(page("errors.md")) == []


def test_every_oauth_error_is_documented_and_none_that_is_absent() -> None:
    """docs/errors.md has each OAuth error where it is answered, with its status where it has one, and no other."""
    assert oauth_error_complaints(page("errors.md")) == []


def test_errors_of_documented_endpoints_exist() -> None:
    """The error codes that docs/endpoints.md names are in the table of errors."""
    assert endpoint_error_complaints(page("endpoints.md")) == []


def test_every_command_and_option_is_documented_and_none_that_is_absent() -> None:
    """docs/cli.md has a heading for each command and a row for each of its options, and no other."""
    assert cli_complaints(page("cli.md")) == []


def test_every_nginx_file_is_documented_and_none_that_is_absent() -> None:
    """docs/nginx.md names each file of nginx/, and no other."""
    assert nginx_file_complaints(page("nginx.md")) == []


def test_the_example_of_an_environment_has_every_setting() -> None:
    """deploy/example.env has a line for each setting, and none that is absent."""
    assert example_complaints(page("deploy/example.env")) == []


def test_every_file_of_deploy_is_documented() -> None:
    """docs/deploy.md names each file of deploy/."""
    assert deploy_file_complaints(page("deploy.md")) == []


def test_files_and_names_that_pages_point_to_exist() -> None:
    """`service/file.py::Name` on a page is defined in that file."""
    assert [(name, found) for name, text in pages().items() if (found := reference_complaints(text))] == []


def test_every_link_and_anchor_resolves() -> None:
    """A relative link in a Markdown file leads to a file, and its anchor to a heading."""
    checked = all_markdown()
    assert {"README.md", "SECURITY.md", "examples/relying_party/README.md"} < checked.keys()
    assert link_complaints(checked) == []


def test_every_page_can_be_reached() -> None:
    """From the README, links lead to every page."""
    assert orphan_complaints(pages()) == []


def test_every_dependency_has_its_reason() -> None:
    """docs/decisions/0001-dependencies.md names each direct dependency, and no other."""
    assert dependency_complaints(page("decisions/0001-dependencies.md")) == []


# --- pages that are wrong ---


def without(text: str, start: str) -> str:
    """The page without its line that starts so; there is exactly one."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(start)]
    assert len(lines) - len(kept) == 1, f"{len(lines) - len(kept)} lines start with {start!r}"
    return "".join(kept)


def after(text: str, start: str, line: str) -> str:
    """The page with a line more, behind the one that starts so."""
    match = re.search(rf"^{re.escape(start)}.*\n", text, re.M)
    assert match is not None
    return f"{text[: match.end()]}{line}\n{text[match.end() :]}"


Checker = Callable[[str], list[str]]

LACKING: list[tuple[Checker, str, str, str]] = [
    (setting_complaints, "settings.md", "| `PYLON_ADMIN_TOKEN`", "PYLON_ADMIN_TOKEN is undocumented"),
    (setting_complaints, "settings.md", "| `WEB_CONCURRENCY`", "WEB_CONCURRENCY is undocumented"),
    (
        route_complaints,
        "endpoints.md",
        "### `POST /api/auth/jwt`",
        "POST /api/auth/jwt is undocumented",
    ),
    (
        admin_complaints,
        "endpoints.md",
        "Auth: admin. The app reports",
        "POST /api/auth/session is undocumented",
    ),
    (discovery_complaints, "endpoints.md", "| `jwks_uri`", "jwks_uri is undocumented"),
    (minted_claim_complaints, "endpoints.md", "| `jti`", "jti is undocumented"),
    (id_token_claim_complaints, "endpoints.md", "| `at_hash`", "at_hash is undocumented"),
    (scope_complaints, "endpoints.md", "| `address` |", "address is undocumented"),
    (body_field_complaints, "endpoints.md", "| `remember`", "remember is undocumented"),
    (sign_in_field_complaints, "endpoints.md", "| `expires_in`", "expires_in is undocumented"),
    (member_complaints, "settings.md", "| `tos_uri`", "tos_uri is undocumented"),
    (check_complaints, "architecture.md", "| `check_scope`", "check_scope is undocumented"),
    (error_complaints, "errors.md", "| `REPLAYED`", "REPLAYED 401 is undocumented"),
    (proxy_error_complaints, "errors.md", "| `PROXY_REFUSED`", "PROXY_REFUSED is undocumented"),
    (proxy_error_complaints, "errors.md", "| 421", "421 is undocumented"),
    (
        oauth_error_complaints,
        "errors.md",
        "| `unsupported_grant_type`",
        "unsupported_grant_type 400 is undocumented",
    ),
    (oauth_error_complaints, "errors.md", "| `consent_required`", "consent_required is undocumented"),
    (cli_complaints, "cli.md", "## `pylon-oidc sweep`", "pylon-oidc sweep is undocumented"),
    (cli_complaints, "cli.md", "| `--version`", "pylon-oidc: --version is undocumented"),
    (cli_complaints, "cli.md", "| `--public`", "pylon-oidc clients add: --public is undocumented"),
    (dependency_complaints, "decisions/0001-dependencies.md", "| `click`", "click is undocumented"),
]


@each_of(("checker", "name", "line", "complaint"), LACKING)
def test_a_line_that_is_missing_is_found(checker: Checker, name: str, line: str, complaint: str) -> None:
    """A page that lacks one line about something real fails the check."""
    assert complaint in checker(without(page(name), line))


TOO_MUCH: list[tuple[Checker, str, str, str, str]] = [
    (
        setting_complaints,
        "settings.md",
        "| `PORT`",
        "| `PYLON_SHOE_SIZE` | unset | | |",
        "PYLON_SHOE_SIZE is documented and absent",
    ),
    (
        setting_complaints,
        "settings.md",
        "| `PORT`",
        "| `PYLON_JWT_ALG` | `HS256` | | |",
        "PYLON_JWT_ALG is documented twice",
    ),
    (
        mention_complaints,
        "settings.md",
        "# Settings",
        "\nSet `PYLON_SHOE_SIZE`.\n",
        "PYLON_SHOE_SIZE is mentioned and absent",
    ),
    (
        route_complaints,
        "endpoints.md",
        "## Tokens",
        "\n### `PUT /api/auth/jwt`\n",
        "PUT /api/auth/jwt is documented and absent",
    ),
    (
        discovery_complaints,
        "endpoints.md",
        "| `jwks_uri`",
        "| `registration_endpoint` | |",
        "registration_endpoint is documented and absent",
    ),
    (minted_claim_complaints, "endpoints.md", "| `jti`", "| `nbf` | |", "nbf is documented and absent"),
    (id_token_claim_complaints, "endpoints.md", "| `at_hash`", "| `azp` | |", "azp is documented and absent"),
    (
        scope_complaints,
        "endpoints.md",
        "| `address` |",
        "| `shoe` | `size` |",
        "shoe with size is documented and absent",
    ),
    (body_field_complaints, "endpoints.md", "| `remember`", "| `shoe` | |", "shoe is documented and absent"),
    (
        member_complaints,
        "settings.md",
        "| `tos_uri`",
        "| `shoe_uri` | |",
        "shoe_uri is documented and absent",
    ),
    (
        check_complaints,
        "architecture.md",
        "| `check_scope`",
        "| `check_shoe` | | | redirect | |",
        "check_shoe is documented and absent",
    ),
    (
        sign_in_field_complaints,
        "endpoints.md",
        "| `expires_in`",
        "| `shoe` | string | |",
        "shoe is documented and absent",
    ),
    (
        error_complaints,
        "errors.md",
        "| `REPLAYED`",
        "| `TEAPOT` | 418 | | |",
        "TEAPOT 418 is documented and absent",
    ),
    (proxy_error_complaints, "errors.md", "| 421", "| 418 | |", "418 is documented and absent"),
    (
        oauth_error_complaints,
        "errors.md",
        "| `unsupported_grant_type`",
        "| `invalid_shoe` | 400 | | | |",
        "invalid_shoe 400 is documented and absent",
    ),
    (
        endpoint_error_complaints,
        "endpoints.md",
        "# Endpoints",
        "\nErrors: `SHOE_MISSING`.\n",
        "SHOE_MISSING is no error code",
    ),
    (
        cli_complaints,
        "cli.md",
        "| `--version`",
        "| `--shoe` | |",
        "pylon-oidc: --shoe is documented and absent",
    ),
    (
        cli_complaints,
        "cli.md",
        "# The command line",
        "\n## `pylon-oidc dance`\n",
        "pylon-oidc dance is documented and absent",
    ),
    (
        nginx_file_complaints,
        "nginx.md",
        "# ",
        "\nSee `snippets/shoe.conf`.\n",
        "snippets/shoe.conf is documented and absent",
    ),
    (
        reference_complaints,
        "architecture.md",
        "# Architecture",
        "\nSee `service/shoe.py`.\n",
        "service/shoe.py does not exist",
    ),
    (
        reference_complaints,
        "architecture.md",
        "# Architecture",
        "\nSee `service/issuer.py::shoe`.\n",
        "shoe is not defined in service/issuer.py",
    ),
    (
        dependency_complaints,
        "decisions/0001-dependencies.md",
        "| `click`",
        "| `shoes` | |",
        "shoes is documented and absent",
    ),
]


@each_of(("checker", "name", "line", "more", "complaint"), TOO_MUCH)
def test_a_line_too_many_is_found(checker: Checker, name: str, line: str, more: str, complaint: str) -> None:
    """A page that describes something that does not exist fails the check."""
    assert complaint in checker(after(page(name), line, more))


def test_a_file_of_deploy_that_is_not_named_is_found() -> None:
    """A page that leaves a file of deploy/ out fails the check."""
    text = page("deploy.md").replace("deploy/Dockerfile", "the Dockerfile")
    assert deploy_file_complaints(text) == ["deploy/Dockerfile is undocumented"]


def test_a_setting_that_the_example_lacks_or_invents_is_found() -> None:
    """An example of an environment that is not this program's fails the check."""
    text = page("deploy/example.env").replace("#PYLON_COOKIE_NAME=", "#PYLON_SHOE_SIZE=")
    assert example_complaints(text) == [
        "PYLON_COOKIE_NAME is undocumented",
        "PYLON_SHOE_SIZE is documented and absent",
    ]


def test_an_nginx_file_that_is_not_named_is_found() -> None:
    """A page that leaves a file of nginx/ out fails the check."""
    assert "snippets/tls.conf is undocumented" in nginx_file_complaints(
        page("nginx.md").replace("tls.conf", "tls")
    )


@each_of(
    ("shown", "wrong"),
    [
        ("| `PYLON_JWT_LIFETIME_SECS` | `3600` |", "| `PYLON_JWT_LIFETIME_SECS` | `3601` |"),
        ("| `PYLON_JWT_LIFETIME_SECS` | `3600` |", "| `PYLON_JWT_LIFETIME_SECS` | `an hour` |"),
        ("| `PYLON_COOKIE_NAME` | `pylon_session` |", "| `PYLON_COOKIE_NAME` | unset |"),
        ("| `PYLON_JWT_AUDIENCE` | unset |", "| `PYLON_JWT_AUDIENCE` | `api` |"),
        ("| `PYLON_OIDC_JWKS_RSA_E` | `AQAB` |", "| `PYLON_OIDC_JWKS_RSA_E` | `Aw` |"),
        ("| `PORT` | unset |", "| `PORT` | `4321` |"),
    ],
)
def test_another_default_is_found(shown: str, wrong: str) -> None:
    """A default that is not the code's fails the check."""
    text = page("settings.md")
    assert shown in text
    assert len(default_complaints(text.replace(shown, wrong))) == 1


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ("| `first_party` | `false` |", "| `first_party` | `true` |"),
        ("| `client_name` | unset |", '| `client_name` | `"wiki"` |'),
        ('| `response_types` | `["code"]` |', "| `response_types` | unset |"),
    ],
)
def test_another_default_of_a_client_is_found(shown: str, wrong: str) -> None:
    """A default of a client's metadata that is not the code's fails the check."""
    text = page("settings.md")
    assert shown in text
    assert len(member_complaints(text.replace(shown, wrong))) == 1


def test_an_example_of_clients_that_is_refused_is_found() -> None:
    """An example that the service would not start with fails the check, which names the member at fault."""
    text = page("settings.md").replace('"client_name": "The wiki"', '"client_nam": "The wiki"')
    (complaint,) = example_client_complaints(text)
    assert complaint.startswith("PYLON_OIDC_CLIENTS: client 1 (wiki), client_nam: is not known; did you mean")


@pytest.mark.parametrize(
    ("shown", "wrong", "complaint"),
    [
        ("`check_scope`", "`check_prompt`", "check_scope is undocumented"),
        ("`invalid_scope` | redirect", "`invalid_scope` | page", "check_scope answers otherwise"),
        ("`invalid_scope` | redirect", "`invalid_request` | redirect", "check_scope has other errors"),
    ],
)
def test_another_table_of_checks_is_found(shown: str, wrong: str, complaint: str) -> None:
    """A table that describes a check differently from the code fails the check."""
    text = page("architecture.md")
    assert shown in text
    assert complaint in check_complaints(text.replace(shown, wrong))


def test_checks_in_another_order_are_found() -> None:
    """Two checks in the wrong order fail the check."""
    lines = page("architecture.md").splitlines(keepends=True)
    (at,) = (number for number, line in enumerate(lines) if line.startswith("| `check_scope`"))
    lines[at : at + 2] = reversed(lines[at : at + 2])
    assert check_complaints("".join(lines)) == ["the checks are in another order"]


def test_another_example_of_discovery_is_found() -> None:
    """An example that the service would not serve fails the check."""
    text = page("endpoints.md").replace('"request_uri_parameter_supported": false', '"shoe": false')
    assert "the example is another document" in discovery_complaints(text)


@each_of(
    ("link", "complaint"),
    [
        ("[x](nowhere.md)", "docs/cli.md: nowhere.md leads nowhere"),
        ("[x](../../outside.md)", "docs/cli.md: ../../outside.md leads nowhere"),
        ("[x](errors.md#shoes)", "docs/cli.md: errors.md#shoes is no heading there"),
        ("[x](#shoes)", "docs/cli.md: #shoes is no heading there"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, complaint: str) -> None:
    """A link to a missing file or heading fails the check."""
    all_pages = pages()
    all_pages["docs/cli.md"] += f"\n{link}\n"
    assert complaint in link_complaints(all_pages)


def test_a_page_that_nothing_links_to_is_found() -> None:
    """A page that no other page links to fails the check."""
    all_pages = pages() | {"docs/shoes.md": "# Shoes\n"}
    assert orphan_complaints(all_pages) == ["docs/shoes.md is linked from nowhere"]


# --- the reading itself ---


def test_anchors_follow_the_rule_of_github() -> None:
    """Letters are lowered, marks dropped, blanks become hyphens, and a second heading of a name gets a number."""
    text = "# On a PaaS: what to set\n\n## `POST /api/auth/jwt`\n\n## A\n\n## A\n\n```\n# no heading\n```\n"
    assert anchors(text) == {"on-a-paas-what-to-set", "post-apiauthjwt", "a", "a-1"}


def test_a_mark_without_its_block_is_refused() -> None:
    """A recipe whose mark has slipped away from its block does not drop out of the tests in silence."""
    with pytest.raises(ValueError, match="no block"):
        blocks("<!-- recipe: x.py -->\n\n```python\n1\n```\n")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os\nos.environ.get('A_FILE', '') or os.environ['B']", {"A", "B"}),
        ("from os import getenv, environ\ngetenv('C')\nenviron.get('D')", {"C", "D"}),
        ("import os\ndef number(name):\n    return int(os.environ.get(name))\nnumber('E_FILE')", {"E"}),
    ],
)
def test_names_that_a_file_reads_are_found(source: str, names: set[str], tmp_path: Path) -> None:
    """However a configuration file asks the environment, the name is seen."""
    file = tmp_path / "conf.py"
    file.write_text(source)
    assert names_read_by(file) == names


def test_cells_are_split_at_bars_that_are_not_code() -> None:
    """A bar in backticks does not end a cell."""
    assert rows("| a | b |\n| --- | --- |\n| `x|y` | z |\n") == [["`x|y`", "z"]]
