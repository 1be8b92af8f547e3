"""The commands of docs/deploy.md and docs/nginx.md, pasted on a machine that has nothing of ours yet.

They make a user, folders and files of the system, so they run in a mount namespace of their own, whose changes are
gone with it. systemd does not run there: the unit's own lines are started as its user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import PROJECT
from tests.docs.recipes import INSTALL, RECIPES, direct_environment

UNIT = (PROJECT / "deploy/pylon-oidc.service").read_text(encoding="utf-8")

#: A layer over every folder that the commands write to.
LAYERS = """
for folder in /etc /opt /var/lib /var/log /usr/local /run; do
    layer=$LAYERS/$(echo $folder | tr / _)
    mkdir -p $layer/new $layer/work
    mount -t overlay overlay -o lowerdir=$folder,upperdir=$layer/new,workdir=$layer/work $folder
done
"""


#: What Debian's package does when it is installed, with no port that another one may have.
POSTGRESQL = """
pg_createcluster --port 54329 -o listen_addresses= "$(ls /usr/lib/postgresql | tail -n 1)" page --start
export PGPORT=54329
cd /
"""


def unit_lines(name: str) -> list[str]:
    """The values of a setting of the unit."""
    return re.findall(rf"^{name}=-?(.+)$", UNIT, re.M)


def started() -> str:
    """What systemd does with the unit: its runtime folder, then its commands, as its user, with its environment file."""
    as_user = "runuser -u pylon-oidc -- env -C /opt/pylon-oidc $(cat /etc/pylon-oidc/env)"
    return f"""
        install -d -m 0750 -o pylon-oidc -g pylon-oidc /run/pylon-oidc
        {as_user} {unit_lines("ExecStartPre")[0]}
        {as_user} {unit_lines("ExecStart")[0]} 2> $LAYERS/log &
        trap "code=\\$?; kill $!; wait $! || true; exit \\$code" EXIT
        for i in $(seq 300); do [ -S /run/pylon-oidc/gunicorn.sock ] && break; sleep 0.1; done
    """


def script() -> str:
    """The pages' lines; `systemctl` is the unit's own lines, and what apt-get would install is here."""
    steps = "\n".join(RECIPES[name].code for name in INSTALL)
    before, enable, after = steps.partition("systemctl enable --now pylon-oidc\n")
    assert enable
    after = after.replace("apt-get install --yes postgresql\n", f"echo; {POSTGRESQL}")
    check = "runuser -u pylon-oidc -- pylon-oidc check --env-file /etc/pylon-oidc/env\nnginx -t\n"
    return LAYERS + before.replace("systemctl daemon-reload\n", "") + started() + after + check


def test_a_machine_goes_from_nothing_to_ready_by_the_page(tmp_path: Path) -> None:
    """Every line works as it stands; check names the settings and the service's user; the service is ready; PostgreSQL
    takes it by its user; nginx takes the site.
    """
    if os.getuid() != 0:
        pytest.skip("needs root, for a mount namespace of its own")
    needed = {"unshare", "runuser", "useradd", "pg_createcluster"}
    assert needed <= {name for name in needed if shutil.which(name)}
    layers = tmp_path / "layers"
    layers.mkdir()
    environment = {
        **direct_environment(),
        "LAYERS": str(layers),
        "REPOSITORY": str(PROJECT),
        "PYTHON": "/usr/bin/python3",  # Debian's: another one may lie where the service's user cannot look
        "ISSUER": "https://id.example.com",
        "NAME": "id.example.com",
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip")),
    }
    ran = subprocess.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
            "bash",
            "-eu",
            "-c",
            f"mount -t tmpfs tmpfs $LAYERS\n{script()}",
        ],
        env=environment | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "The configuration is sound." in ran.stdout
    assert "PYLON_ADMIN_TOKEN_FILE" in ran.stdout and "read as user pylon-oidc" in ran.stdout
    assert '{"status":"ok","database":"ok"' in ran.stdout
    assert ran.stdout.index("note: database: SQLite") < ran.stdout.index("note: database: PostgreSQL")
    assert ran.stdout.endswith("The configuration is sound.\n")
    assert "test is successful" in ran.stderr
    assert not Path("/etc/pylon-oidc").exists()


def test_the_page_and_the_unit_name_the_same_places() -> None:
    """The user, the socket and the file of settings of the page are those of the unit."""
    steps = "\n".join(RECIPES[name].code for name in INSTALL)
    assert unit_lines("User") == ["pylon-oidc"]
    assert unit_lines("EnvironmentFile") == ["/etc/pylon-oidc/env"]
    for place in (
        "/etc/pylon-oidc/env",
        "/var/lib/pylon-oidc",
        "/run/pylon-oidc/gunicorn.sock",
        "/opt/pylon-oidc",
    ):
        assert place in steps and place in UNIT


def test_every_secret_has_a_line_in_the_unit() -> None:
    """A secret may be handed over as a credential, whichever it is."""
    for name in (
        "PYLON_KEY_ENCRYPTION_KEY",
        "PYLON_ADMIN_TOKEN",
        "PYLON_JWT_SECRET",
        "PYLON_TRUSTED_SECRET",
        "PYLON_OIDC_PRIVATE_KEY",
        "PYLON_OIDC_CLIENTS",
        "DATABASE_URL",
    ):
        credential = re.search(rf"^#Environment={name}_FILE=%d/(\S+)$", UNIT, re.M)
        assert credential, name
        assert re.search(rf"^#LoadCredential={credential[1]}:/etc/pylon-oidc/", UNIT, re.M), name
