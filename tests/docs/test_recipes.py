"""The recipes of the documentation, run as a reader would run them: copied from the page, against a real gunicorn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import jwt
import pytest

from tests.docs.markdown import PROJECT, blocks, page
from tests.docs.recipes import (
    APIS,
    APIS_BUILT,
    CLIENTS,
    ELSEWHERE,
    HAND_OVERS,
    INSTALL,
    MCP,
    RECIPES,
    SHELL,
    SIGN_INS,
    STATUS_LISTS,
    VERIFIERS,
    WALK,
    direct_environment,
    run_recipe,
)
from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, SECRET, TRUSTED, Gunicorn, hold_port, rsa_pem

AUDIENCE = "api"


@pytest.fixture(scope="module")
def hs256() -> Iterator[Gunicorn]:
    """A service with the default algorithm, in dev mode."""
    with Gunicorn(
        PYLON_DEV_MODE="1",
        PYLON_JWT_SECRET=SECRET,
        PYLON_JWT_AUDIENCE=AUDIENCE,
        PYLON_ADMIN_TOKEN=ADMIN,
        PYLON_TRUSTED_SECRET=TRUSTED,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def rs256() -> Iterator[Gunicorn]:
    """A service that third parties can rely on."""
    with Gunicorn(
        PYLON_DEV_MODE="1",
        PYLON_JWT_ALG="RS256",
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_JWT_AUDIENCE=AUDIENCE,
        PYLON_ADMIN_TOKEN=ADMIN,
    ) as server:
        yield server


@pytest.fixture
def server(name: str, request: pytest.FixtureRequest) -> Gunicorn:
    """The service whose tokens the verifier is for."""
    found = request.getfixturevalue("hs256" if "hs256" in name else "rs256")
    assert isinstance(found, Gunicorn)
    return found


def minted(server: Gunicorn, host: str) -> str:
    """A token for alice, minted by a caller that knows the service by that host."""
    session = server.sign_in("alice", roles=["editor"])
    answer = server.call(
        "POST",
        "/api/auth/jwt",
        host=f"{host}:{server.port}",
        headers={"Authorization": f"Bearer {session}"},
    )
    token = answer.json()["token"]
    assert isinstance(token, str)
    return token


def verify(
    name: str, token: str, server: Gunicorn, folder: Path, *, audience: str = AUDIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a verifier that trusts the service as `localhost`."""
    environment = {"ISSUER": server.origin, "AUDIENCE": audience}
    if "hs256" in name:
        environment["PYLON_JWT_SECRET"] = SECRET
    return run_recipe(name, token, folder=folder, environment=environment)


def test_every_recipe_is_run_by_a_test() -> None:
    """No block is marked as a recipe without being run here, and none that is run here has vanished."""
    here = [*VERIFIERS, *SIGN_INS, *SHELL, *INSTALL, *HAND_OVERS, *CLIENTS, *STATUS_LISTS, *MCP]
    assert sorted(RECIPES) == sorted([*here, *ELSEWHERE, *WALK, *APIS, *APIS_BUILT])
    assert all(name in (PROJECT / path).read_text(encoding="utf-8") for name, path in ELSEWHERE.items())
    walking = (PROJECT / "tests/flows/walking.py").read_text(encoding="utf-8")
    assert all(name in walking for name in WALK)
    built = (PROJECT / "apps/apis.py").read_text(encoding="utf-8")
    assert all(name in built for name in APIS_BUILT)
    assert {"hs256.py", "rs256.py", "rs256.mjs"} <= {name.split("-", 1)[1] for name in VERIFIERS}


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verify_recipe_accepts_a_minted_token(name: str, server: Gunicorn, tmp_path: Path) -> None:
    """A recipe of the documentation says who a minted token speaks of."""
    ran = verify(name, minted(server, "localhost"), server, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "alice" in ran.stdout


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verify_recipe_refuses_another_audience(name: str, server: Gunicorn, tmp_path: Path) -> None:
    """A recipe of the documentation refuses a token that was minted for somebody else."""
    ran = verify(name, minted(server, "localhost"), server, tmp_path, audience="another")
    assert ran.returncode != 0
    assert "aud" in ran.stderr.lower()
    assert "alice" not in ran.stdout


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verify_recipe_refuses_another_issuer(name: str, server: Gunicorn, tmp_path: Path) -> None:
    """A recipe of the documentation refuses a token whose `iss` is not the issuer that it trusts."""
    ran = verify(name, minted(server, "127.0.0.1"), server, tmp_path)
    assert ran.returncode != 0
    assert "iss" in ran.stderr.lower()
    assert "alice" not in ran.stdout


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verify_recipe_refuses_a_forged_signature(name: str, server: Gunicorn, tmp_path: Path) -> None:
    """A recipe of the documentation refuses a token that another key signed."""
    token = minted(server, "localhost")
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    key = SECRET[::-1] if header["alg"] == "HS256" else rsa_pem(number=1)
    ran = verify(name, jwt.encode(claims, key, header["alg"], header), server, tmp_path)
    assert ran.returncode != 0
    assert "signature" in ran.stderr.lower()
    assert "alice" not in ran.stdout


@pytest.mark.parametrize("name", [name for name in VERIFIERS if "rs256" in name])
def test_an_rs256_recipe_refuses_an_hmac_under_the_public_key(
    name: str, server: Gunicorn, tmp_path: Path
) -> None:
    """A recipe of the documentation takes the algorithm from itself, never from the token."""
    token = minted(server, "localhost")
    claims = jwt.decode(token, options={"verify_signature": False})
    jwks = server.call("GET", "/oidc/jwks").json()
    forged = jwt.encode(claims, jwks["keys"][0]["n"], "HS256", {"kid": jwks["keys"][0]["kid"]})
    ran = verify(name, forged, server, tmp_path)
    assert ran.returncode != 0
    assert "alice" not in ran.stdout


@each_of("name", VERIFIERS)
def test_a_verify_recipe_names_one_algorithm(name: str) -> None:
    """A recipe of the documentation tells its library the one algorithm that it expects."""
    assert re.findall(r"algorithms\W+\[(.*?)\]", RECIPES[name].code) == [f'"{name[7:12].upper()}"']


@pytest.mark.parametrize("name", SIGN_INS)
def test_a_sign_in_recipe_begins_a_session(name: str, hs256: Gunicorn, tmp_path: Path) -> None:
    """A recipe of the documentation gets a session token that works, also when it is run twice at once."""
    secrets = (
        {"PYLON_ADMIN_TOKEN": ADMIN} if name.startswith("sign-in") else {"PYLON_TRUSTED_SECRET": TRUSTED}
    )
    for _ in range(2):
        ran = run_recipe(name, folder=tmp_path, environment={"PYLON_URL": hs256.origin, **secrets})
        assert ran.returncode == 0, ran.stderr
        me = hs256.call("GET", "/api/auth/me", headers={"Authorization": f"Bearer {ran.stdout.strip()}"})
        assert (me.status, me.json()["user_id"], me.json()["roles"]) == (200, "ada", ["admin"])


@pytest.mark.parametrize("name", SIGN_INS)
def test_a_sign_in_recipe_needs_its_secret(name: str, hs256: Gunicorn, tmp_path: Path) -> None:
    """With another secret, a recipe of the documentation begins no session."""
    wrong = {"PYLON_ADMIN_TOKEN": TRUSTED, "PYLON_TRUSTED_SECRET": ADMIN, "PYLON_URL": hs256.origin}
    ran = run_recipe(name, folder=tmp_path, environment=wrong)
    assert ran.returncode != 0
    assert "HTTP Error 40" in ran.stderr
    assert ran.stdout == ""


@pytest.fixture(scope="module")
def developers_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, str]]:
    """What `make run` starts, in a folder with `data/`: the folder, the port, and what it printed."""
    folder = tmp_path_factory.mktemp("dev")
    holder = hold_port()
    port = holder.getsockname()[1]
    printed = folder / "printed"
    settings = {"PORT": str(port), "PYLON_DATA_DIR": str(folder / "data"), "WEB_CONCURRENCY": "1"}
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [PROJECT / "deploy/dev-run"],
            env={**direct_environment(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(port, process)
        yield folder, port, printed.read_text()
    finally:
        process.terminate()
        process.wait(35)
        holder.close()


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """Wait until something answers on the port."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert process.poll() is None, f"it ended with {process.returncode}"
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok"
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("it did not answer")


def test_the_readme_has_the_lines_that_make_run_prints(developers_machine: tuple[Path, int, str]) -> None:
    """The lines to paste in the README are those of `make run`, except for the port and the path of the token."""
    folder, port, printed = developers_machine
    lines = [line for line in printed.splitlines() if "curl -fsS" in line or "joserfc" in line]
    here = {
        f"localhost:{port}": "localhost:4321",
        f"'{folder}/data/dev-admin-token'": "data/dev-admin-token",
        f"'{folder}/data/dev-jwt-secret'": "data/dev-jwt-secret",
        f"'{PROJECT}/.venv/bin/python'": ".venv/bin/python",
    }
    for ours, theirs in here.items():
        lines = [line.replace(ours, theirs) for line in lines]
    assert lines == RECIPES["four-lines.sh"].code.splitlines()


def test_the_four_lines_mint_a_token_fetch_the_keys_and_verify_it(
    developers_machine: tuple[Path, int, str],
) -> None:
    """Pasted, the lines of the README print a token for alice, the empty key set, and what a stock library verified."""
    ran = paste("four-lines.sh", developers_machine)
    assert ran.returncode == 0, ran.stderr
    token, keys, verified = ran.stdout.splitlines()
    minted = json.loads(token)
    claims = jwt.decode(minted["token"], options={"verify_signature": False})
    assert (minted["token_type"], minted["expires_in"], json.loads(keys)) == ("Bearer", 3600, {"keys": []})
    assert claims["sub"] == "alice"
    assert verified == f"verified {claims}"


def test_the_fourth_line_refuses_a_token_that_was_changed(developers_machine: tuple[Path, int, str]) -> None:
    """What is pasted to verify does verify: another secret, another issuer are refused."""
    lines = RECIPES["four-lines.sh"].code
    for ours, wrong in [("$(cat data/dev-jwt-secret)", SECRET), ("'value': 'http:", "'value': 'https:")]:
        ran = paste("four-lines.sh", developers_machine, lines.replace(ours, wrong))
        assert ran.returncode != 0
        assert "verified" not in ran.stdout


def test_a_port_in_use_is_one_line(developers_machine: tuple[Path, int, str]) -> None:
    """A second `make run` says which port is in use, and how to choose another."""
    folder, port, _ = developers_machine
    ran = subprocess.run(
        [PROJECT / "deploy/dev-run"],
        env={**direct_environment(), "PORT": str(port), "PYLON_DATA_DIR": str(folder / "data")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(rf"PORT: {port} is in use .* PORT=\d+ make run\n", ran.stderr)


def test_the_quickstart_signs_a_user_in(developers_machine: tuple[Path, int, str]) -> None:
    """The first step of the quickstart prints a session token of alice."""
    ran = paste("quickstart.sh", developers_machine)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["token"].startswith("pylon_")
    assert answer["user_id"] == "alice"


def test_the_quickstart_starts_the_example_as_its_readme_does() -> None:
    """The clients of the quickstart are those that the relying party of `examples/` says it needs."""
    ours = blocks(page("quickstart.md"))["quickstart-clients"].code
    assert ours in (PROJECT / "examples/relying_party/README.md").read_text(encoding="utf-8")


def paste(
    name: str, machine: tuple[Path, int, str], lines: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a shell recipe, or lines of it that were changed, in the folder of the developer's machine, at its port."""
    folder, port, _ = machine
    (folder / ".venv").exists() or (folder / ".venv").symlink_to(PROJECT / ".venv")
    lines = (lines or RECIPES[name].code).replace("localhost:4321", f"localhost:{port}")
    return subprocess.run(
        ["/bin/sh", "-c", lines],
        cwd=folder,
        env={**direct_environment(), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
