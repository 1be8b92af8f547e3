"""No form of the report holds a secret, and nothing that `doctor` made at the service is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from tests.doctor.asking import assert_no_secret
from tests.doctor.deployment import read_deployments
from tests.doctor.running import Apps, Disk, run
from tests.support.gunicorn import ADMIN

DEPLOYMENTS = {each.name: each for each in [*read_deployments("good"), *read_deployments("deployments")]}


@pytest.mark.parametrize("name", ["shipped", "redirects-rewritten", "replicas-differ-keys", "token-issuer"])
def test_no_report_holds_a_secret(name: str, apps: Apps, disk: Disk, tmp_path: Path) -> None:
    """docs/cli.md: it never prints a secret, and the session that it makes it revokes."""
    deployment, page = DEPLOYMENTS[name], tmp_path / "page.html"
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    with run(deployment, deployment.files(), apps, disk, tmp_path / "cache") as running:
        options = [*running.doctor_options(), "--html", str(page)]
        result = CliRunner().invoke(main, ["doctor", deployment.url, *options])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert_no_secret(result.output)
        assert_no_secret(page.read_text())
        left = running.inside.call(
            "GET",
            "/api/auth/users/pylon-oidc-doctor/sessions",
            headers={"Authorization": f"Bearer {ADMIN}"},
        )
        assert left.json() == {"sessions": []}
