"""The house rules that a linter can see, read from the syntax tree of `service/`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.cases import each_of

HOUSE = Path(__file__).parents[2] / "service"
FILES = sorted(HOUSE.rglob("*.py"))

#: Properties of a Falcon request that believe a header of anybody, or repeat `Host` unchecked.
BELIEVED = frozenset(
    {
        "forwarded", "forwarded_host", "forwarded_prefix", "forwarded_scheme", "forwarded_uri",
        "access_route", "host", "netloc", "port", "subdomain", "uri", "url", "base_url", "prefix", "scheme", "relative_uri",
        "app", "root_path", "remote_addr", "client_prefers_xml",
    }
)  # fmt: skip
REQUESTS = frozenset({"req", "_req", "request"})
#: Where each may be used at all.
ENVIRONMENT = frozenset({"settings/reading.py", "serving/plan.py"})
RANDOMNESS = frozenset({"handles.py"})
WALL_CLOCK = frozenset(
    {
        "app.py",
        "logs.py",
        "cli/check.py",
        "cli/client_keys.py",
        "cli/clients.py",
        "cli/deliveries.py",
        "cli/doctor.py",
        "cli/invitations.py",
        "cli/keys_migration.py",
        "cli/keys_shown.py",
        "cli/migrate.py",
        "cli/policy.py",
        "cli/sessions.py",
    }
    | {"cli/serve.py", "cli/sweep.py"}
)
#: Dev mode's pages look at forwarding headers only to refuse: a request that came by a proxy did not come from this machine.
ONLY_TO_REFUSE = {"resources/dev.py": frozenset({"HTTP_X_FORWARDED_"})}

Finder = Callable[[ast.Module, str], Iterator[str]]


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def _imported(tree: ast.Module) -> Iterator[str]:
    """Every module and name that is imported, dotted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _used(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that is used."""
    yield from (
        name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (name := _dotted(node))
    )


def believing_headers(tree: ast.Module, file: str) -> Iterator[str]:
    """Uses of request properties that believe anybody."""
    for name in _used(tree):
        base, _, attribute = name.rpartition(".")
        if base in REQUESTS and attribute in BELIEVED:
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("forwarded_"):
            yield from {node.attr} - {"forwarded_allow_ips"}
        # `X-Forwarded-For` is only for the log, and only from trusted peers.
        if isinstance(node, ast.Constant) and str(node.value).startswith("HTTP_X_FORWARDED"):
            yield from {node.value} - {"HTTP_X_FORWARDED_FOR"} - ONLY_TO_REFUSE.get(file, frozenset())


def deprecated_jose(tree: ast.Module, _file: str) -> Iterator[str]:
    """Imports of what Authlib's author has deprecated."""
    yield from (
        name for name in _imported(tree) if name == "authlib.jose" or name.startswith("authlib.jose.")
    )


def environment(tree: ast.Module, file: str) -> Iterator[str]:
    """Reads of the environment outside the settings."""
    if file not in ENVIRONMENT:
        names = {"os.environ", "os.getenv", "os.environb", "os.putenv"}
        yield from (
            name for name in (*_used(tree), *_imported(tree)) if ".".join(name.split(".")[:2]) in names
        )


def randomness(tree: ast.Module, file: str) -> Iterator[str]:
    """Sources of randomness outside the handles."""
    if file in RANDOMNESS:
        return
    yield from (name for name in _imported(tree) if name.split(".")[0] in {"random", "secrets", "uuid"})
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node) if isinstance(node, ast.FunctionDef) else ():
            child_names = {name for each in ast.walk(child) if (name := _dotted(each)) == "os.urandom"}
            # The suffix of a temporary file's name is no secret.
            if child_names and (file, node.name) != ("keys/file.py", "create_key_file"):
                yield f"{node.name}: os.urandom"


def wall_clock(tree: ast.Module, file: str) -> Iterator[str]:
    """Reads of the clock where time is an argument."""
    if file not in WALL_CLOCK:
        clocks = (
            "time.time",
            "time.time_ns",
            "datetime.now",
            "datetime.utcnow",
            "datetime.today",
            "date.today",
            "time.localtime",
            "time.gmtime",
        )
        yield from (name for name in (*_used(tree), *_imported(tree)) if name.endswith(clocks))


def jose_elsewhere(tree: ast.Module, file: str) -> Iterator[str]:
    """Calls of JOSE outside the one place for it; who imports keys, reads their file or the settings may name their types."""
    if file not in {
        "keys/signing.py",
        "keys/others.py",
        "keys/material.py",
        "keys/file.py",
        "keys/starting.py",
    } and not file.startswith("settings/"):
        yield from (name for name in _imported(tree) if name.split(".")[0] == "joserfc")


RULES: dict[Finder, str] = {
    believing_headers: "`req.forwarded_*` and its kin trust anybody; the issuer is `req.context.issuer`",
    deprecated_jose: "`authlib.jose` is deprecated in favour of joserfc",
    environment: "settings/reading.py is the only reader of the environment, except for what a platform says to the server",
    randomness: "randomness comes from handles.py",
    wall_clock: "time is an argument: the clock is read by its default, the commands and the log",
    jose_elsewhere: "JOSE is called in keys/signing.py, and for keys of others in keys/others.py",
}


@each_of("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Finder) -> None:
    """Each rule is in `RULES`."""
    assert len(FILES) > 30
    found = [
        f"{file.relative_to(HOUSE)}: {name}"
        for file in FILES
        for name in rule(ast.parse(file.read_text()), file.relative_to(HOUSE).as_posix())
    ]
    assert not found, RULES[rule]


BROKEN: list[tuple[Finder, str]] = [
    (believing_headers, "def f(req):\n    return req.forwarded_host"),
    (believing_headers, "def f(req):\n    return req.access_route[0]"),
    (believing_headers, "def f(req):\n    return req.host + req.path"),
    (believing_headers, "def f(req):\n    return f'{req.url}'"),
    (believing_headers, "def f(_req):\n    return _req.netloc"),
    (believing_headers, "def f(other):\n    return other.forwarded_uri"),
    (believing_headers, "def f(req):\n    return req.env['HTTP_X_FORWARDED_PROTO']"),
    (deprecated_jose, "from authlib.jose import jwt"),
    (deprecated_jose, "import authlib.jose.rfc7519"),
    (deprecated_jose, "from authlib import jose"),
    (environment, "import os\nx = os.environ['A']"),
    (environment, "import os\nx = os.environ.get('A')"),
    (environment, "from os import environ"),
    (environment, "import os\nx = os.getenv('A')"),
    (randomness, "import random"),
    (randomness, "from secrets import token_hex"),
    (randomness, "import uuid"),
    (randomness, "import os\ndef f():\n    return os.urandom(4)"),
    (wall_clock, "import time\nx = time.time()"),
    (wall_clock, "from time import time"),
    (wall_clock, "from datetime import datetime\nx = datetime.now()"),
    (wall_clock, "import datetime\nx = datetime.datetime.now()"),
    (jose_elsewhere, "from joserfc import jwt"),
]


@each_of(("rule", "code"), BROKEN, ids=lambda value: value if isinstance(value, str) else None)
def test_a_broken_rule_is_found(rule: Finder, code: str) -> None:
    """Every check has a refusing test: the finders find."""
    assert list(rule(ast.parse(code), "resources/some.py"))


GOOD = [
    "def f(req):\n    return req.context.issuer, req.path, req.method, req.env['HTTP_HOST']",
    "import time\ndef f(clock=None):\n    return time.perf_counter(), time.monotonic()",
    "import os\ndef f(path):\n    return os.stat(path)",
    "def f(settings):\n    return settings.forwarded_allow_ips, settings.host",
]


@each_of("code", GOOD)
def test_what_is_allowed_is_not_found(code: str) -> None:
    """The finders find nothing else."""
    for rule in RULES:
        assert list(rule(ast.parse(code), "resources/some.py")) == []
