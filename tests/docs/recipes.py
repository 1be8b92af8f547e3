"""The recipes of the documentation, and how a reader runs one: saved from the page, with its settings around it.

A recipe is a fenced block below a comment `<!-- recipe: name.ending -->`; its ending says what runs it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.markdown import PROJECT, Block, blocks, pages
from tests.support.gunicorn import clean_environment

JS = PROJECT / "tests/js"

RECIPES: dict[str, Block] = {
    block.name: block
    for text in pages().values()
    for block in blocks(text).values()
    if block.kind == "recipe"
}
VERIFIERS = sorted(name for name in RECIPES if name.startswith(("verify-", "readme-")))
SIGN_INS = ["sign-in.py", "sign-in-and-mint.py", "sign-in.mjs", "trusted-mint.py", "trusted-mint.mjs"]
SHELL = ["quickstart.sh", "four-lines.sh"]
INSTALL = [
    "install-program.sh",
    "install-folders.sh",
    "install-settings.sh",
    "install-check.sh",
    "install-start.sh",
    "install-postgresql.sh",
    "install-nginx.sh",
    "install-certificate.sh",
]
BACKENDS = ["hand-over-backend.py", "hand-over-backend.mjs"]
HAND_OVERS = [*BACKENDS, "hand-over-cookie.py"]
#: Run by these tests.
ELSEWHERE = {
    "signed-in-already.py": "tests/provider/test_signed_in_already.py",
    "device-openid-client.mjs": "tests/flows/test_provider_browser.py",
}
#: Of docs/audiences.md, run by tests/flows/walking.py; the programs in Go and Java by `make apps`.
WALK = [
    *(
        "three-apis.toml",
        "three-apis.env",
        "three-apis.json",
        "three-apis-look.sh",
        "mint.sh",
        "authorize.txt",
    ),
    *("redeem.sh", "refresh.sh", "nightly.sh", "exchange.sh"),
]
APIS = ["api.py", "api.mjs", "legacy.py", "legacy.mjs"]
APIS_BUILT = ["api.go", "legacy.go", "Api.java", "Legacy.java"]
#: Of docs/status-lists.md, run by tests/flows/test_status_lists.py.
STATUS_LISTS = ["status-list.py", "status-list.mjs"]
#: Of docs/mcp.md, run by tests/flows/test_mcp.py.
MCP = ["mcp.toml", "mcp.env", "mcp-metadata.sh", "mcp-server.py", "mcp-server.mjs"]
CLIENTS = ["client-authlib.py", "client-openid-client.mjs"]


def direct_environment() -> dict[str, str]:
    """The environment of the tests, without settings of ours and without proxies."""
    return {name: value for name, value in clean_environment().items() if not name.lower().endswith("_proxy")}


def recipe_command(name: str, folder: Path) -> list[str]:
    """Save a recipe; the command that runs it.

    Args:
        name: The recipe's.
        folder: Where it is saved; it gets the npm packages of the tests.
    """
    file = folder / name
    file.write_text(RECIPES[name].code, encoding="utf-8")
    if file.suffix == ".mjs":
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(JS / "node_modules")
        # Not by node_modules/.bin: npm 9, which is Debian's, puts no link there.
        own = next(JS.glob("node_modules/node-linux-*/bin/node"), None)
        program = str(own) if own else shutil.which("node")
        assert program, "no Node here: run tests/js/install"
    else:
        program = {".py": sys.executable, ".sh": "/bin/sh"}[file.suffix]
    return [program, str(file)]


def run_recipe(
    name: str, *argv: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Save a recipe and run it.

    Args:
        name: The recipe's.
        argv: Its arguments.
        folder: Where it is saved.
        environment: What is added to the environment of the tests; without proxies for this machine.

    Returns:
        Its exit code and what it printed.
    """
    return subprocess.run(
        [*recipe_command(name, folder), *argv],
        cwd=folder,
        env={**direct_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
